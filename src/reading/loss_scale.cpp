#include "src/reading/loss_scale.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

using Observed = CapturedLoss::Reduction;

/// What the program multiplied the loss with, as a mean over the backward passes: 0-d, fp64. `certain`: as in RowScale.
/// Each term of an unreduced loss has a factor of its own. One that all terms have that count at all is no weight of a
/// sample. Other factors are weights of a sum, and leave open what an average divides by.
RowScale factor_of(const CapturedLoss& loss, bool mean) {
  const at::Tensor gradient = loss.result_gradient().to(at::kDouble).div(static_cast<double>(loss.backwards()));
  if (loss.reduction != Observed::None || gradient.numel() == 0) return {gradient.sum(), {}};
  const at::Tensor least = gradient.min(), most = gradient.max();
  const at::Tensor largest = at::where(most.abs().ge(least.abs()), most, least);
  const at::Tensor uniform = gradient.eq(0).logical_or(gradient.eq(largest)).all();
  if (mean) return {largest, uniform};
  return {at::where(uniform, largest, at::ones_like(largest)), {}};
}

at::Tensor both(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && b.defined() ? a.logical_and(b.to(a.device())) : a.defined() ? a : b;
}

RowScale common_scale(const Losses& losses, bool mean) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> factors, terms;
  at::Tensor certain;
  for (const CapturedLoss* loss : losses) {
    const auto [factor, known] = factor_of(*loss, mean);
    certain = both(certain, known);
    factors.push_back(factors.empty() ? factor : factor.to(factors.front().device()));
    const at::Tensor one = at::ones_like(factor);
    // A number on the CPU is multiplied without a copy, which would wait for the device.
    terms.push_back(loss->reduction == Observed::Mean ? one.mul(loss->terms) : one);
  }
  const at::Tensor factor = at::stack(factors), count = at::stack(terms);
  // A loss that counts nothing, or has no term that counts, has an infinite scale; the others decide.
  const at::Tensor scales = count.div(factor).masked_fill(count.eq(0), INFINITY);
  const at::Tensor scale = scales.abs().min();
  RowScale result{at::where(scale.isinf(), at::ones_like(scale), scale), certain};
  if (losses.size() == 1) return result;
  const at::Tensor counts = scales.isinf().logical_not();
  const at::Tensor least = scales.abs().argmin().reshape({1});
  const at::Tensor first = scales.index_select(0, least);
  const auto all = [&](const at::Tensor& holds) { return holds.logical_or(counts.logical_not()).all(); };
  constexpr double kRounding = 1e-6;  // of fp32 factors that were computed in different ways
  const at::Tensor equal = all(scales.sub(first).abs().le(first.abs().mul(kRounding)));
  const at::Tensor weighted = factor.abs().max().eq(1).logical_and(all(count.eq(count.index_select(0, least))));
  result.certain = both(equal.logical_or(weighted), certain);
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
  // LibTorch's "batchmean" is a sum that it divides itself.
  const auto is_other = [mean](const CapturedLoss* loss) {
    return mean ? loss->reduction == Observed::Sum && loss->op != "aten::kl_div" : loss->reduction == Observed::Mean;
  };
  if (std::any_of(losses.begin(), losses.end(), is_other)) {
    return {{}, name, Status::ReductionMismatch};
  }
  if (losses.empty()) return {{}, name, mean ? StatusSet(Status::ReductionUnknown) : StatusSet()};
  if (!mean) return {common_scale(losses, mean), name, {}};
  const bool alike = std::all_of(losses.begin(), losses.end(),
                                 [&](const CapturedLoss* loss) { return loss->op == losses.front()->op; });
  if (!alike) return {{}, name, Status::ReductionUnknown};
  return {common_scale(losses, mean), name, {}, losses.front()->targets};
}

}  // namespace dds
