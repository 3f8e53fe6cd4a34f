// Where a hook on a tensor puts its gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "hooks/passes.hpp"

namespace dds::hooks {

/// Sums the gradients of one tensor over the backward passes, on autograd's threads, for as long as the slot is kept.
/// Only the passes of the most kind count: what hands gradients to the program is a penalty or a product with the
/// Hessian where another pass accumulates. A pass beside the training counts only if nothing is trained.
class GradientSlot {
 public:
  GradientSlot() = default;
  explicit GradientSlot(std::shared_ptr<const Trained> trained) : trained_(std::move(trained)) {}
  /// Of a tensor. It is hooked if it takes part in the graph; the hook does not keep the slot.
  static std::shared_ptr<GradientSlot> of(const at::Tensor& tensor, std::shared_ptr<const Trained> trained);

  at::Tensor gradient() const;  ///< undefined before the first backward pass
  at::Tensor take();            ///< the same, and starts from nothing again
  std::int64_t backwards() const;

 private:
  void add(const at::Tensor& incoming);
  /// True if no forget_gradients() came since.
  bool current() const;
  /// True if what was summed up counts.
  bool counts() const;

  const std::shared_ptr<const Trained> trained_;
  mutable std::mutex mutex_;          // of all below
  PassKind kind_ = PassKind::Beside;  ///< of the passes that are summed
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
