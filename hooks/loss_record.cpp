#include "hooks/loss_record.hpp"

#include <utility>

#include "hooks/captured_access.hpp"

namespace dds::hooks {

void LossRecord::activation(const ActivationRun& run, const at::Tensor& result) {
  activations_.insert_or_assign(result.unsafeGetTensorImpl(),
                                Activation{Activation::Weak(result.getIntrusivePtr()),
                                           Activation::Weak(run.input.getIntrusivePtr()), run.difference, run.classes});
}

at::Tensor LossRecord::logits_of(const LossRun& run) const {
  if (!run.activated || !run.input.defined()) return run.input;
  const auto found = activations_.find(run.input.unsafeGetTensorImpl());
  if (found == activations_.end() || found->second.result.expired()) return {};
  const Activation& activation = found->second;
  const bool fits = activation.difference == run.difference && activation.classes == run.classes;
  return fits ? at::Tensor(activation.input.lock()) : at::Tensor();
}

void LossRecord::add(const LossRun& run, std::string_view op, const at::Tensor& result, std::int64_t order,
                     const std::shared_ptr<const Trained>& trained) {
  CapturedLoss loss;
  loss.op = op;
  loss.reduction = run.reduction;
  loss.terms = run.terms;
  loss.targets = run.targets;
  loss.order = order;
  const at::Tensor logits = logits_of(run);
  // A hook on a leaf would outlive the recording; a leaf is no network's output.
  if (logits.defined() && result.requires_grad() && logits.requires_grad() && !logits.is_leaf()) {
    loss.difference = run.difference;
    loss.classes = run.classes;
    loss.slope = run.slope;
    CapturedAccess::set_logits(loss, logits, trained);
  }
  CapturedAccess::set_result(loss, result, trained);
  losses_.push_back(std::move(loss));
}

std::vector<CapturedLoss> LossRecord::take() {
  activations_.clear();
  return std::exchange(losses_, {});
}

}  // namespace dds::hooks
