#include "hooks/loss_run.hpp"

#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>

namespace dds::hooks {
namespace {

using Difference = CapturedLoss::Difference;
using Reduction = CapturedLoss::Reduction;

Reduction reduction_of(std::int64_t argument) {  // at::Reduction
  return argument == 0 ? Reduction::None : argument == 1 ? Reduction::Mean : Reduction::Sum;
}

/// As CapturedLoss::terms.
at::Tensor terms_of(const kind::Loss& loss, Arguments args, const at::Tensor& output, const at::Tensor& target) {
  const auto constant = [](std::int64_t count) { return at::full({}, static_cast<double>(count), at::kDouble); };
  if (!loss.classes) return constant(std::max(output.numel(), target.numel()));
  // A mean over the weights of the targets' classes is not one over a number of samples.
  if (tensor_at(args, loss.weights).defined()) return {};
  // Probabilities: one distribution for each position.
  if (target.is_floating_point()) return constant(output.numel() / output.size(output.dim() > 1 ? 1 : 0));
  return target.ne(int_at(args, loss.ignored, -100)).sum().to(at::kDouble);
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
  const auto* softmax = op.as<kind::Softmax>();
  if (!(softmax && softmax->undone) && !op.as<kind::Logistic>()) return std::nullopt;
  const at::Tensor input = tensor_at(args, 0);
  if (!input.defined() || input.dim() == 0) return std::nullopt;
  if (!softmax) return ActivationRun{Difference::Logistic, input, 0};
  const std::int64_t dim = int_at(args, 1, 0);
  return ActivationRun{Difference::Softmax, input, dim < 0 ? dim + input.dim() : dim};
}

bool is_softmax_of_rows(const Operator& op, Arguments args) {
  const at::Tensor input = tensor_at(args, 0);
  if (const auto* loss = op.as<kind::Loss>()) {
    return loss->difference == Difference::Softmax && !loss->activated && input.dim() == 2;
  }
  if (!op.as<kind::Softmax>() || !input.defined()) return false;
  const std::int64_t dim = int_at(args, 1, 0);
  return dim == -1 || dim == input.dim() - 1;
}

}  // namespace dds::hooks
