// Reading the arguments of an operator. A place past the last is no argument (kNone of hooks/operators.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

namespace dds::hooks {

using Arguments = c10::ArrayRef<const c10::IValue>;

/// Undefined if there is no tensor at this place.
inline at::Tensor tensor_at(Arguments args, std::size_t i) {
  return i < args.size() && args[i].isTensor() ? args[i].toTensor() : at::Tensor();
}

/// Empty if there is no list of tensors at this place.
inline std::vector<at::Tensor> tensors_at(Arguments args, std::size_t i) {
  return i < args.size() && args[i].isTensorList() ? args[i].toTensorVector() : std::vector<at::Tensor>();
}

inline std::int64_t int_at(Arguments args, std::size_t i, std::int64_t otherwise) {
  return i < args.size() && args[i].isInt() ? args[i].toInt() : otherwise;
}

inline bool bool_at(Arguments args, std::size_t i, bool otherwise) {
  return i < args.size() && args[i].isBool() ? args[i].toBool() : otherwise;
}

inline double number_at(Arguments args, std::size_t i, double otherwise) {
  if (i >= args.size()) return otherwise;
  return args[i].isDouble() ? args[i].toDouble() : args[i].isInt() ? static_cast<double>(args[i].toInt()) : otherwise;
}

/// A list of `count` integers; one integer stands for all.
inline std::vector<std::int64_t> ints_at(Arguments args, std::size_t i, std::size_t count) {
  if (i < args.size() && args[i].isInt()) return std::vector<std::int64_t>(count, args[i].toInt());
  if (i >= args.size() || !args[i].isIntList()) return {};
  const auto list = args[i].toIntVector();
  return list.size() == 1 ? std::vector<std::int64_t>(count, list[0]) : list;
}

/// Calls visit(tensor) for every defined tensor among the arguments, those in lists included.
template <class Visit>
void for_each_tensor(Arguments args, const Visit& visit) {
  for (const c10::IValue& value : args) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) visit(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        if (tensor.defined()) visit(tensor);
      }
    } else if (value.isOptionalTensorList()) {
      for (const auto& tensor : value.toOptionalTensorVector()) {
        if (tensor && tensor->defined()) visit(*tensor);
      }
    }
  }
}

}  // namespace dds::hooks
