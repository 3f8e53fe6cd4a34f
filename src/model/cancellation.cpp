#include "src/model/cancellation.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

at::Tensor root_of(std::int64_t count, const at::Tensor& like) {
  return at::full({}, std::sqrt(static_cast<double>(count)), like.options().dtype(at::kDouble).requires_grad(false));
}

/// |weight| sqrt(count) + slope |weight z|, where `weight` has one entry for each of the `count`.
at::Tensor of_probabilities(const at::Tensor& logits, std::int64_t count, double slope, const at::Tensor& weight,
                            const at::Tensor& broadcast) {
  if (!weight.defined()) return norm_of(logits).mul(slope).add(root_of(count, logits));
  if (weight.dim() == 0) {
    return norm_of(logits).mul(slope).add(root_of(count, logits)).mul(weight.to(at::kDouble).abs());
  }
  return norm_of(weight).add(norm_of(logits.mul(broadcast)).mul(slope));
}

}  // namespace

Cancellation Cancellation::unknown() {
  Cancellation result;
  result.known_ = false;
  return result;
}

void Cancellation::add(const Cancellation& other) {
  known_ = known_ && other.known_;
  if (!other.terms_.defined()) return;
  const auto joined = [](const at::Tensor& own, const at::Tensor& others) {
    return own.defined() ? own.add(others.to(own.device())) : others;
  };
  terms_ = joined(terms_, other.terms_);
  difference_ = joined(difference_, other.difference_);
}

Cancellation Cancellation::scaled(const at::Tensor& factor) const {
  Cancellation result = *this;
  if (!factor.defined() || !terms_.defined()) return result;
  const at::Tensor square = factor.to(terms_.device(), at::kDouble).square();
  result.terms_ = terms_.mul(square);
  result.difference_ = difference_.mul(square);
  return result;
}

at::Tensor Cancellation::factor() const {
  if (!known_ || !terms_.defined()) return {};
  const at::Tensor ratio = terms_.div(difference_).sqrt().add(1);
  return at::where(difference_.eq(0), at::ones_like(ratio), ratio);
}

at::Tensor norm_of(const at::Tensor& tensor) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kEntries = std::int64_t{1} << 20;
  at::Tensor squares = at::zeros({}, tensor.options().dtype(at::kDouble).requires_grad(false));
  if (tensor.numel() == 0) return squares;
  const at::Tensor rows = tensor.detach().reshape({tensor.dim() > 0 ? tensor.size(0) : 1, -1});
  const std::int64_t step = std::max<std::int64_t>(1, kEntries / rows.size(1));
  for (std::int64_t begin = 0; begin < rows.size(0); begin += step) {
    const at::Tensor part = rows.narrow(0, begin, std::min(step, rows.size(0) - begin)).to(at::kDouble);
    squares.add_(part.mul(part).sum());
  }
  return squares.sqrt();
}

at::Tensor softmax_terms(const at::Tensor& logits, std::int64_t classes, const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const bool each = weight.defined() && weight.dim() > 0;
  return of_probabilities(logits, logits.numel() / std::max<std::int64_t>(1, logits.size(classes)), 0.5, weight,
                          each ? weight.unsqueeze(classes) : weight);
}

at::Tensor logistic_terms(const at::Tensor& logits, const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  return of_probabilities(logits, logits.numel(), 0.25, weight, weight);
}

at::Tensor square_terms(const at::Tensor& outputs, const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  return norm_of(weight.defined() ? outputs.mul(weight) : outputs);
}

}  // namespace dds
