#include "src/reading/loss_scale.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>

namespace dds {
namespace {

using Observed = CapturedLoss::Reduction;

/// What the program multiplied the loss with, as a mean over the backward passes: 0-d, fp64.
at::Tensor factor_of(const CapturedLoss& loss) {
  const at::Tensor gradient = loss.result_gradient().to(at::kDouble).div(static_cast<double>(loss.backwards()));
  if (loss.reduction != Observed::None || gradient.numel() == 0) return gradient.sum();
  // Each term has a factor of its own. One that all terms have that count at all is no weight of a sample.
  const at::Tensor least = gradient.min(), most = gradient.max();
  const at::Tensor largest = at::where(most.abs().ge(least.abs()), most, least);
  const at::Tensor uniform = gradient.eq(0).logical_or(gradient.eq(largest)).all();
  return at::where(uniform, largest, at::ones_like(largest));
}

RowScale common_scale(const Losses& losses) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> factors, terms;
  for (const CapturedLoss* loss : losses) {
    const at::Tensor factor = factor_of(*loss);
    factors.push_back(factors.empty() ? factor : factor.to(factors.front().device()));
    const at::Tensor one = at::ones_like(factor);
    // A number on the CPU is multiplied without a copy, which would wait for the device.
    terms.push_back(loss->reduction == Observed::Mean ? one.mul(loss->terms) : one);
  }
  const at::Tensor factor = at::stack(factors), count = at::stack(terms);
  const at::Tensor scales = count.div(factor);
  // A loss that counts nothing has an infinite scale; the others decide.
  const at::Tensor scale = scales.abs().min();
  RowScale result{at::where(scale.isinf(), at::ones_like(scale), scale), {}};
  if (losses.size() == 1) return result;
  const at::Tensor counts = scales.isinf().logical_not();
  const at::Tensor least = scales.abs().argmin().reshape({1});
  const at::Tensor first = scales.index_select(0, least);
  const auto all = [&](const at::Tensor& holds) { return holds.logical_or(counts.logical_not()).all(); };
  constexpr double kRounding = 1e-6;  // of fp32 factors that were computed in different ways
  const at::Tensor equal = all(scales.sub(first).abs().le(first.abs().mul(kRounding)));
  const at::Tensor weighted = factor.abs().max().eq(1).logical_and(all(count.eq(count.index_select(0, least))));
  result.certain = equal.logical_or(weighted);
  return result;
}

}  // namespace

Losses losses_of(const CapturedCall& call, const Captured& captured) {
  Losses losses;
  for (const std::size_t loss : call.losses) {
    if (captured.losses[loss].backwards() > 0) losses.push_back(&captured.losses[loss]);
  }
  return losses;
}

LossScale scale_of(const Reduction& reduction, const Losses& losses) {
  if (const std::optional<double> divisor = reduction.divisor()) {
    return {{at::full({}, *divisor, at::kDouble), {}}, fmt::format("scale:{}", *divisor), {}};
  }
  const bool mean = reduction.kind() == Reduction::Mean;
  const std::string name = mean ? "mean" : "sum";
  const Observed other = mean ? Observed::Sum : Observed::Mean;
  if (std::any_of(losses.begin(), losses.end(), [&](const auto* loss) { return loss->reduction == other; })) {
    return {{}, name, Status::ReductionMismatch};
  }
  if (losses.empty()) return {{}, name, mean ? StatusSet(Status::ReductionUnknown) : StatusSet()};
  if (!mean) return {common_scale(losses), name, {}};
  const bool alike = std::all_of(losses.begin(), losses.end(), [&](const CapturedLoss* loss) {
    return loss->reduction == Observed::Mean && loss->op == losses.front()->op;
  });
  if (!alike) return {{}, name, Status::ReductionUnknown};
  return {common_scale(losses), name, {}, losses.front()->targets};
}

}  // namespace dds
