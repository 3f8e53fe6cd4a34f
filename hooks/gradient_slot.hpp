// Where a hook on a tensor puts its gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>

namespace dds::hooks {

/// Sums the gradients of one tensor over the backward passes, on autograd's threads, for as long as the slot is kept.
class GradientSlot {
 public:
  /// Of a tensor. It is hooked if it takes part in the graph; the hook does not keep the slot.
  static std::shared_ptr<GradientSlot> of(const at::Tensor& tensor);

  at::Tensor gradient() const;  ///< undefined before the first backward pass
  at::Tensor take();            ///< the same, and starts from nothing again
  std::int64_t backwards() const;

 private:
  void add(const at::Tensor& incoming);

  mutable std::mutex mutex_;  // of all below
  at::Tensor gradient_;
  std::int64_t backwards_ = 0;
};

}  // namespace dds::hooks
