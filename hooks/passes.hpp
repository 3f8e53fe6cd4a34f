// What a backward pass is for.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <atomic>
#include <optional>
#include <unordered_set>

namespace dds::hooks {

/// What a recording trains.
struct Trained {
  /// The leaves. Empty: they are found as they are used, and any may be one.
  std::optional<std::unordered_set<const c10::TensorImpl*>> leaves;
  /// A backward pass came to one.
  mutable std::atomic<bool> reached = false;
};

/// From the least to the most.
enum class PassKind {
  Beside,       ///< comes to none of the trained leaves: the gradient at an input or at logits
  Asks,         ///< hands gradients of leaves to the program: `grad`
  Accumulates,  ///< adds to the gradients of leaves: `backward`
};

/// Of the backward pass that runs on this thread.
PassKind kind_of_pass(const Trained& trained);

}  // namespace dds::hooks
