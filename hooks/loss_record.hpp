// The losses of a recording.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hooks/loss_run.hpp"
#include "hooks/passes.hpp"

namespace dds::hooks {

/// Not safe for several threads at once.
class LossRecord {
 public:
  /// An activation gave `result`. A loss that takes it may be told of what it was taken of.
  void activation(const ActivationRun& run, const at::Tensor& result);
  /// A loss gave `result`; `order`: its place among all calls and losses; `trained`: as GradientSlot has it.
  void add(const LossRun& run, std::string_view op, const at::Tensor& result, std::int64_t order,
           const std::shared_ptr<const Trained>& trained);
  /// No loss comes any more.
  void forget_activations() { activations_.clear(); }
  std::vector<CapturedLoss> take();

 private:
  /// Without a share in its tensors: there may be many activations, and few go into a loss.
  struct Activation {
    using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
    Weak result, input;
    CapturedLoss::Difference difference;
    std::int64_t classes;
  };
  /// What the network gave: the loss's input or, if that is activated, what the activation was taken of. Undefined if
  /// that is not known.
  at::Tensor logits_of(const LossRun& run) const;

  std::vector<CapturedLoss> losses_;
  std::unordered_map<const at::TensorImpl*, Activation> activations_;  // by identity of the result
};

}  // namespace dds::hooks
