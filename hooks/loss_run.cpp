#include "hooks/loss_run.hpp"

#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>

#include "hooks/features.hpp"

namespace dds::hooks {
namespace {

using Difference = CapturedLoss::Difference;
using Reduction = CapturedLoss::Reduction;

Reduction reduction_of(std::int64_t argument) {  // at::Reduction
  return argument == 0 ? Reduction::None : argument == 1 ? Reduction::Mean : Reduction::Sum;
}

/// Number of entries of what tensors of these sizes are broadcast to. The sizes must allow it.
std::int64_t broadcast_numel(const at::Tensor& a, const at::Tensor& b) {
  std::int64_t numel = 1;
  for (std::int64_t from_end = 1; from_end <= std::max(a.dim(), b.dim()); ++from_end) {
    const std::int64_t of_a = from_end <= a.dim() ? a.size(-from_end) : 1;
    const std::int64_t of_b = from_end <= b.dim() ? b.size(-from_end) : 1;
    numel *= of_a == 1 ? of_b : of_a;
  }
  return numel;
}

/// As CapturedLoss::terms.
at::Tensor terms_of(const kind::Loss& loss, Arguments args, const at::Tensor& output, const at::Tensor& target) {
  const auto constant = [](std::int64_t count) { return at::full({}, static_cast<double>(count), at::kDouble); };
  // The backward of a loss of squares divides by the output's entries, also where its forward broadcasts them.
  if (loss.difference == Difference::Squares) return constant(output.numel());
  if (!loss.classes) return constant(broadcast_numel(output, target));
  // Probabilities: one distribution for each position, whatever the classes weigh.
  if (target.is_floating_point()) {
    return constant(output.numel() / std::max<std::int64_t>(1, output.size(output.dim() > 1 ? 1 : 0)));
  }
  const at::Tensor counts = target.ne(int_at(args, loss.ignored, -100));
  const at::Tensor weights = tensor_at(args, loss.weights);
  if (!weights.defined()) return counts.sum().to(at::kDouble);
  const at::Tensor classes = target.masked_fill(counts.logical_not(), 0).flatten().to(at::kLong);
  return weights.to(at::kDouble).index_select(0, classes).mul(counts.flatten()).sum();
}

/// True if the gradient of a term is what the table says: no term is weighted, and none stands for several.
bool is_plain(const kind::Loss& loss, Arguments args, const at::Tensor& output, const at::Tensor& target) {
  const bool weighted = tensor_at(args, loss.weights).defined() || tensor_at(args, loss.more_weights).defined();
  const bool broadcast = !loss.classes && output.sizes() != target.sizes();
  return !weighted && !broadcast;
}

}  // namespace

std::optional<LossRun> read_loss(const Operator& op, Arguments args) {
  const auto* loss = op.as<kind::Loss>();
  const at::Tensor output = tensor_at(args, 0), target = tensor_at(args, 1);
  if (!loss || !output.defined() || !target.defined()) return std::nullopt;
  LossRun run;
  run.reduction = reduction_of(int_at(args, loss->reduction, 1));
  run.targets = target.numel();
  run.terms = terms_of(*loss, args, output, target);
  if (!is_plain(*loss, args, output, target)) return run;
  run.input = output;
  run.activated = loss->activated;
  run.classes = loss->classes && output.dim() > 1 ? 1 : 0;
  run.slope = loss->beta == kind::kNone ? loss->slope : 1 / number_at(args, loss->beta, 1);
  // beta = 0 makes |f - y| of it.
  run.difference = std::isfinite(run.slope) ? loss->difference : Difference::Unknown;
  return run;
}

std::optional<ActivationRun> read_activation(const Operator& op, Arguments args) {
  const bool softmax = op.as<kind::LogSoftmax>() != nullptr;
  if (!softmax && !op.as<kind::Logistic>()) return std::nullopt;
  const at::Tensor input = tensor_at(args, 0);
  if (!input.defined() || input.dim() == 0) return std::nullopt;
  if (!softmax) return ActivationRun{Difference::Logistic, input, 0};
  return ActivationRun{Difference::Softmax, input, from_front(int_at(args, 1, 0), input.dim())};
}

}  // namespace dds::hooks
