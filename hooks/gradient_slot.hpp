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
  /// True if what was summed up counts.
  bool current() const;

  mutable std::mutex mutex_;  // of all below
  at::Tensor gradient_;
  std::int64_t backwards_ = 0;
  std::uint64_t era_ = 0;  ///< when it was summed up
};

/// The gradients in all slots count for nothing: no update follows from their passes.
void forget_gradients();

/// While one lives, no slot takes a gradient in, on any thread: for a pass that is none of the training.
class GradientsIgnored {
 public:
  GradientsIgnored();
  ~GradientsIgnored();
  GradientsIgnored(const GradientsIgnored&) = delete;
  GradientsIgnored& operator=(const GradientsIgnored&) = delete;
};

}  // namespace dds::hooks
