#include "src/reading/step_rows.hpp"

#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <limits>
#include <map>
#include <vector>

#include "src/model/cancellation.hpp"

namespace dds {
namespace {

using Losses = std::vector<const CapturedLoss*>;

/// The losses that a call's output may have gone into: those that ran after it and before its layer did again.
Losses losses_of(const CapturedCall& call, const CapturedLayer& layer, const Captured& captured) {
  std::int64_t next = std::numeric_limits<std::int64_t>::max();
  for (const CapturedCall& other : layer.calls) {
    if (other.order > call.order) next = std::min(next, other.order);
  }
  Losses all, own;
  for (const CapturedLoss& loss : captured.losses) {
    if (loss.order < call.order) continue;
    all.push_back(&loss);
    if (loss.order < next) own.push_back(&loss);
  }
  return own.empty() ? all : own;  // a layer that runs twice in one forward has the losses of its last run
}

/// What cancels in the gradients that came out of one loss operator.
Cancellation cancellation_of(const CapturedLoss& loss) {
  using Difference = CapturedLoss::Difference;
  const at::NoGradGuard no_grad;
  const at::Tensor difference = loss.logits_gradient(), incoming = loss.result_gradient();
  if (loss.difference == Difference::Unknown || !loss.logits_intact()) return Cancellation::unknown();
  if (!difference.defined() || !incoming.defined()) return {};  // no backward pass came through it
  at::Tensor weight = incoming;
  if (loss.reduction == CapturedLoss::Reduction::Mean) {
    if (!loss.terms.defined()) return Cancellation::unknown();
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

/// What cancels in each loss of a step, by its order. The losses are fewer than the layers.
using Cancellations = std::map<std::int64_t, Cancellation>;

Cancellations cancellations_of(const Captured& captured) {
  Cancellations all;
  for (const CapturedLoss& loss : captured.losses) all.emplace(loss.order, cancellation_of(loss));
  return all;
}

Cancellation joined(const Cancellations& all, const Losses& losses) {
  Cancellation result;
  for (const CapturedLoss* loss : losses) result.add(all.at(loss->order));
  return result;
}

/// How the gradients of one call are put back to those of the samples' losses.
struct Scaling {
  at::Tensor factor;  ///< 0-d; undefined: 1
  std::string name;   ///< for the record
  StatusSet status;
  std::int64_t targets = 0;  ///< over how many a mean was taken; 0: there is no mean, or nobody knows
};

Scaling scaling_of(const Reduction& reduction, const Losses& losses) {
  using Observed = CapturedLoss::Reduction;
  if (const std::optional<double> divisor = reduction.divisor()) {
    return {at::full({}, *divisor, at::kDouble), fmt::format("scale:{}", *divisor), {}};
  }
  const auto any = [&](Observed observed) {
    return std::any_of(losses.begin(), losses.end(),
                       [&](const CapturedLoss* loss) { return loss->reduction == observed; });
  };
  if (reduction.kind() == Reduction::Sum) {
    return {{}, "sum", any(Observed::Mean) ? StatusSet(Status::ReductionMismatch) : StatusSet()};
  }
  if (any(Observed::Sum)) return {{}, "mean", Status::ReductionMismatch};
  const bool agree = std::all_of(losses.begin(), losses.end(), [&](const CapturedLoss* loss) {
    return loss->reduction == Observed::Mean && loss->terms.defined() && loss->targets == losses.front()->targets &&
           loss->op == losses.front()->op;
  });
  if (losses.empty() || !agree) return {{}, "mean", Status::ReductionUnknown};
  return {losses.front()->terms, "mean", {}, losses.front()->targets};
}

/// True if an operator that mixes samples ran at or after this call: the rows of its gradient mix them too.
bool coupled_downstream(const CapturedCall& call, const Captured& captured) {
  return std::any_of(captured.layers.begin(), captured.layers.end(), [&](const CapturedLayer& layer) {
    return std::any_of(layer.calls.begin(), layer.calls.end(),
                       [&](const CapturedCall& other) { return other.coupled && other.order >= call.order; });
  });
}

/// The rows of one layer.
ReadingRows::Layer layer_of(const CapturedLayer& layer, const Captured& captured, const Cancellations& cancellations,
                            const SignatureOptions& options, const Reduction& reduction) {
  ReadingRows::Layer result{.rows = LayerRows(layer, options)};
  if (!captured.errors.empty()) result.rows.mark(Status::CaptureFailed);
  const std::int64_t calls = std::ssize(layer.calls);
  const std::int64_t budget = std::max<std::int64_t>(1, own_max_rows(options) / std::max<std::int64_t>(1, calls));
  result.rows.add_bounds(layer);
  for (const CapturedCall& call : layer.calls) {
    result.rows.add_forward(call, budget);
    if (coupled_downstream(call, captured)) result.rows.mark(Side::Fisher, Status::Coupled);
    const Losses losses = losses_of(call, layer, captured);
    const Scaling scaling = scaling_of(reduction, losses);
    const at::Tensor gradient = call.gradient();
    result.rows.add_gradient(call, gradient, call.backwards(), scaling.factor, budget);
    if (gradient.defined() && gradient.numel() == 0) continue;  // no row, and so no scale: the mean of none is 0 / 0
    result.rows.mark(Side::Fisher, scaling.status);
    result.reduction = scaling.name;
    result.targets = scaling.targets;
    if (!wants(options, Side::Fisher) || call.backwards() == 0) continue;
    const Cancellation of_call = joined(cancellations, losses).scaled(scaling.factor);
    result.cancellation.add(of_call.factor().defined() ? of_call : Cancellation::unknown());
  }
  return result;
}

}  // namespace

ReadingRows StepRows::rows_of(const Captured& captured, std::int64_t step) {
  ReadingRows rows;
  rows.step = step;
  const Cancellations cancellations = wants(options_, Side::Fisher) ? cancellations_of(captured) : Cancellations();
  for (const CapturedLayer& layer : captured.layers) {
    try {
      if (layer.calls.empty() && !first_time(layer)) continue;
      rows.layers.push_back(layer_of(layer, captured, cancellations, options_, reduction_));
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
