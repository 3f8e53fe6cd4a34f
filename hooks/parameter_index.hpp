// From a tensor to the parameter that it is, or is a view of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "hooks/memory.hpp"

namespace dds::hooks {

/// Tensors by the memory that they lie in. It shares in them: an address cannot be given to another tensor.
class ParameterIndex {
 public:
  struct Place {
    std::size_t number;   ///< of the tensor, in the order of add()
    std::int64_t offset;  ///< of the first entry in its memory
    std::int64_t numel;   ///< of the whole
  };

  /// Returns the number of the tensor. Tied tensors (same storage, same offset) have the number of the first.
  std::size_t add(const at::Tensor& tensor);

  /// The tensor that this one is, or is a view of, by offset_within().
  std::optional<Place> find(const at::Tensor& tensor) const;
  /// The tensor of this number.
  const at::Tensor& tensor(std::size_t number) const { return tensors_[number]; }

  /// True if a tensor has other memory now than when it was added.
  bool moved() const;

  void clear();

 private:
  std::vector<at::Tensor> tensors_;  ///< by number
  std::unordered_map<const void*, std::vector<std::size_t>> by_storage_;
};

}  // namespace dds::hooks
