#include "src/reading/step_rows.hpp"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <map>
#include <vector>

#include "src/model/cancellation.hpp"
#include "src/reading/loss_scale.hpp"

namespace dds {
namespace {

/// What cancels in the gradients that came out of one loss operator.
Cancellation cancellation_of(const CapturedLoss& loss) {
  using Difference = CapturedLoss::Difference;
  const at::NoGradGuard no_grad;
  const at::Tensor difference = loss.logits_gradient(), incoming = loss.result_gradient();
  if (loss.difference == Difference::Unknown || !loss.logits_intact()) return Cancellation::unknown();
  if (!difference.defined() || !incoming.defined()) return {};  // no backward pass came through it
  at::Tensor weight = incoming;
  if (loss.reduction == CapturedLoss::Reduction::Mean) {
    weight = incoming.to(at::kDouble).div(loss.terms.to(incoming.device()));
  }
  switch (loss.difference) {
    case Difference::Softmax:
      return {softmax_terms(loss.logits, loss.classes, weight), norm_of(difference)};
    case Difference::Logistic:
      return {logistic_terms(loss.logits, weight), norm_of(difference)};
    default:
      return {square_terms(loss.logits, weight).mul(loss.slope), norm_of(difference)};
  }
}

/// What the gradients of a step are put back with. Most layers have the same losses behind them, so each set of losses
/// is looked at once.
class StepLosses {
 public:
  /// Both must outlive it.
  StepLosses(const Captured& captured, const Reduction& reduction) : captured_(captured), reduction_(reduction) {}

  struct Behind {
    LossScale scale;
    Cancellation cancellation;  ///< of the gradients with this scale
  };
  const Behind& behind(const CapturedCall& call) {
    const Losses losses = losses_of(call, captured_);
    const auto [known, is_new] = behind_.try_emplace(losses);
    if (is_new) known->second = found(losses);
    return known->second;
  }

 private:
  Behind found(const Losses& losses) {
    Behind result{scale_of(reduction_, losses), {}};
    for (const CapturedLoss* loss : losses) {
      const auto [known, is_new] = cancellations_.try_emplace(loss);
      if (is_new) known->second = cancellation_of(*loss);
      result.cancellation.add(known->second);
    }
    result.cancellation = result.cancellation.scaled(result.scale.scale.factor);
    return result;
  }

  const Captured& captured_;
  const Reduction& reduction_;
  std::map<Losses, Behind> behind_;
  std::map<const CapturedLoss*, Cancellation> cancellations_;
};

/// True if an operator that mixes samples ran at or after this call: the rows of its gradient mix them too.
bool coupled_downstream(const CapturedCall& call, const Captured& captured) {
  return std::any_of(captured.layers.begin(), captured.layers.end(), [&](const CapturedLayer& layer) {
    return std::any_of(layer.calls.begin(), layer.calls.end(),
                       [&](const CapturedCall& other) { return other.coupled && other.order >= call.order; });
  });
}

/// The rows of one layer.
ReadingRows::Layer layer_of(const CapturedLayer& layer, const Captured& captured, StepLosses& losses,
                            const SignatureOptions& options) {
  ReadingRows::Layer result{.rows = LayerRows(layer, options)};
  if (!captured.errors.empty()) result.rows.mark(Status::CaptureFailed);
  const RowShare share{.among = static_cast<double>(std::max<std::size_t>(1, layer.calls.size()))};
  result.rows.add_bounds(layer);
  for (const CapturedCall& call : layer.calls) {
    result.rows.add_forward(call, share);
    if (!wants(options, Side::Fisher)) continue;
    if (coupled_downstream(call, captured)) result.rows.mark(Side::Fisher, Status::Coupled);
    const auto& [scale, cancellation] = losses.behind(call);
    const at::Tensor gradient = call.gradient();
    result.rows.add_gradient(call, gradient, call.backwards(), scale.scale, share);
    if (gradient.defined() && gradient.numel() == 0) continue;  // no row, and so no scale: the mean of none is 0 / 0
    if (gradient.defined()) result.rows.mark(Side::Fisher, scale.status);
    result.reduction = scale.name;
    result.targets = scale.targets;
    if (call.backwards() > 0)
      result.cancellation.add(cancellation.factor().defined() ? cancellation : Cancellation::unknown());
  }
  return result;
}

}  // namespace

ReadingRows StepRows::rows_of(const Captured& captured, std::int64_t step) {
  ReadingRows rows;
  rows.step = step;
  StepLosses losses(captured, reduction_);
  for (const CapturedLayer& layer : captured.layers) {
    try {
      if (layer.calls.empty() && !first_time(layer)) continue;
      rows.layers.push_back(layer_of(layer, captured, losses, options_));
    } catch (...) {
      rows.keep_error();
      rows.layers.push_back({.rows = LayerRows(layer, options_)});
      rows.layers.back().rows.mark(Status::CaptureFailed);
    }
  }
  if (!captured.errors.empty() && !rows.error) {
    rows.error = std::make_exception_ptr(
        CaptureError(fmt::format("step {}: {} errors while capturing, rows may be missing; the first: {}", step,
                                 captured.errors.size(), captured.errors.front())));
  }
  return rows;
}

}  // namespace dds
