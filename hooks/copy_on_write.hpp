// Tensors of captured calls, saved before the program overwrites them in place.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <unordered_map>
#include <vector>

#include "hooks/call_record.hpp"

namespace dds::hooks {

/// Not safe for several threads at once.
class CopyOnWrite {
 public:
  /// The call holds a tensor with the memory of this one.
  void hold(CallId id, const at::Tensor& tensor);

  /// An operator is about to write into `target`. Calls that hold tensors with its memory get copies, but for the
  /// output of `except`.
  void before_write(const at::Tensor& target, const std::optional<CallId>& except, CallRecord& calls);

 private:
  std::unordered_map<const void*, std::vector<CallId>> holders_;  // by storage
};

}  // namespace dds::hooks
