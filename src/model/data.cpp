#include <ATen/ops/index_select.h>
#include <c10/util/StringUtil.h>

#include <dds/error.hpp>
#include <dds/model.hpp>

namespace dds {
namespace {

std::int64_t samples_of(const at::Tensor& tensor, const std::string& name) {
  if (!tensor.defined() || tensor.dim() == 0) {
    throw InvalidArgument("Data: " + name + " is " + (tensor.defined() ? "a scalar" : "undefined") +
                          "; expected a tensor whose first dimension counts the samples");
  }
  return tensor.size(0);
}

/// Applies `part` to every tensor of `data` that is defined.
template <class Part>
Data each(const Data& data, const Part& part) {
  Data result;
  result.inputs.reserve(data.inputs.size());
  for (const auto& input : data.inputs) result.inputs.push_back(part(input));
  if (data.targets.defined()) result.targets = part(data.targets);
  return result;
}

}  // namespace

std::int64_t Data::size() const {
  if (inputs.empty()) throw InvalidArgument("Data: no input tensor; expected at least one");
  const auto samples = samples_of(inputs[0], "input 0");
  if (samples == 0) throw InvalidArgument("Data: input 0 holds no sample; expected at least one");
  const auto check = [samples](const at::Tensor& tensor, const std::string& name) {
    const auto own = samples_of(tensor, name);
    if (own != samples) {
      throw InvalidArgument(
          c10::str("Data: ", name, " holds ", own, " samples; expected ", samples, " as input 0 has"));
    }
  };
  for (std::size_t i = 1; i < inputs.size(); ++i) check(inputs[i], c10::str("input ", i));
  if (targets.defined()) check(targets, "targets");
  return samples;
}

Data Data::slice(std::int64_t begin, std::int64_t end) const {
  const auto samples = size();
  if (begin < 0 || begin >= end || end > samples) {
    throw InvalidArgument(
        c10::str("Data::slice: ", begin, " to ", end, "; expected 0 <= begin < end <= ", samples, ", the samples"));
  }
  return each(*this, [&](const at::Tensor& tensor) { return tensor.narrow(0, begin, end - begin); });
}

Data Data::select(const at::Tensor& indices) const {
  if (!indices.defined() || indices.dim() != 1 || indices.scalar_type() != at::kLong) {
    throw InvalidArgument("Data::select: expected the indices as a tensor of one dimension and type int64");
  }
  return each(*this, [&](const at::Tensor& tensor) { return at::index_select(tensor, 0, indices); });
}

}  // namespace dds
