#include "src/theory/minimum.hpp"

#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

/// Part of a gradient. A part outside the direction that is smaller than this is rounding of the part along it.
constexpr double kRounding = 1e-12;
/// From kFew + 1 to kMostExact weights a Newton step takes the whole Hessian.
constexpr std::int64_t kFew = 16;
/// Of the largest curvature: a curvature below is rounding.
constexpr double kFlat = 1e-13;

double scalar_product(const at::Tensor& a, const at::Tensor& b) { return a.dot(b).item<double>(); }

/// The step of at most `radius` that lowers the quadratic model most. With the Hessian's eigenvalues h_i and
/// eigenvectors q_i it is
///   step = -sum_i q_i (q_i . gradient) / (|h_i| + shift),
/// the smallest shift >= 0 for which |step| <= radius, found by bisection. Flat directions are left out.
/// It takes as many products with the Hessian as conjugate gradients do where the Hessian is as badly conditioned as a
/// network's, and is more exact.
at::Tensor exact_step(const Complement& complement, const at::Tensor& gradient, double radius) {
  const auto [curvatures, basis] = at::linalg_eigh(hessian_of(complement, gradient));
  const at::Tensor size = curvatures.abs(), slope = basis.t().mv(gradient), zero = at::zeros_like(slope);
  const at::Tensor bends = size.gt(size.max().mul(kFlat));
  const auto shifted = [&](double shift) { return at::where(bends, slope.div(size.add(shift)), zero).neg(); };
  at::Tensor step = shifted(0);
  double low = 0, high = slope.norm().item<double>() / radius;
  for (int i = 0; i < 50 && step.norm().item<double>() > radius; ++i) {
    const double middle = 0.5 * (low + high);
    (shifted(middle).norm().item<double>() > radius ? low : high) = middle;
    // `high` is on the inner side of the boundary: the step ends within the radius.
    if (i == 49 || high - low < 1e-3 * high) step = shifted(high);
  }
  return basis.mv(step);
}

/// The same by Steihaug's conjugate gradients, which need no whole Hessian.
at::Tensor steihaug_step(const Complement& complement, const at::Tensor& gradient, double radius) {
  at::Tensor step = at::zeros_like(gradient), residual = gradient.neg(), search = residual;
  double rr = scalar_product(residual, residual), largest = 0;
  const double tolerance = 1e-24 * rr;
  const std::int64_t most = std::min<std::int64_t>(2 * gradient.numel(), 200);
  // The positive root x of |step + x search| = radius.
  const auto to_boundary = [&] {
    const double a = scalar_product(search, search), b = scalar_product(step, search),
                 c = scalar_product(step, step) - radius * radius;
    return step.add(search.mul((-b + std::sqrt(std::max(0.0, b * b - a * c))) / a));
  };
  for (std::int64_t i = 0; i < most && rr > tolerance; ++i) {
    const at::Tensor curved = complement.curvature(search);
    const double bend = scalar_product(search, curved), squared = scalar_product(search, search);
    largest = std::max(largest, std::abs(bend) / squared);
    // After the first step, a bend that is zero up to rounding is a flat direction: nothing is to be gained there.
    if (!(bend > 0)) return i == 0 || bend < -kFlat * largest * squared ? to_boundary() : step;
    const double alpha = rr / bend;
    const at::Tensor next = step.add(search.mul(alpha));
    if (scalar_product(next, next) > radius * radius) return to_boundary();
    step = next;
    residual = residual.sub(curved.mul(alpha));
    const double next_rr = scalar_product(residual, residual);
    search = residual.add(search.mul(next_rr / rr));
    rr = next_rr;
  }
  return step;
}

/// Descends from `best`, with first steps of at most `radius`.
Minimum descended(const Complement& complement, const at::Tensor& base, Minimum best, double radius,
                  const MinimumOptions& options) {
  for (std::int64_t i = 0; i < options.steps && best.value > options.floor && radius > 1e-14 * options.radius; ++i) {
    const at::Tensor whole_gradient = complement.whole_gradient(base.add(best.v));
    const at::Tensor gradient = complement.projected(whole_gradient);
    const double outside = scalar_product(gradient, gradient), whole = scalar_product(whole_gradient, whole_gradient);
    if (outside <= kRounding * kRounding * whole) break;
    const at::Tensor step = newton_step(complement, gradient, radius);
    // A Newton step lowers K by half of this.
    if (std::abs(scalar_product(gradient, step)) < 1e-7 * best.value) break;
    at::Tensor next = complement.projected(best.v.add(step));
    const double length = std::sqrt(scalar_product(next, next));
    if (length > options.radius) next = next.mul(options.radius / length);
    const double lower = complement.value(base.add(next));
    if (!(lower < best.value)) {
      radius /= 8;
      continue;
    }
    const bool stalled = lower > (1 - 1e-6) * best.value;
    best = {lower, next};
    radius = std::min(options.radius, 2 * radius);
    if (stalled) break;
  }
  return best;
}

}  // namespace

at::Tensor Complement::projected(const at::Tensor& v) const {
  const at::Tensor once = v.sub(direction_.mul(scalar_product(v, direction_)));
  return once.sub(direction_.mul(scalar_product(once, direction_)));  // again, for what rounding left
}

at::Tensor hessian_of(const Complement& complement, const at::Tensor& gradient) {
  const std::int64_t p = gradient.numel();
  at::Tensor hessian = at::zeros({p, p}, gradient.options());
  for (std::int64_t i = 0; i < p; ++i) {
    at::Tensor unit = at::zeros_like(gradient);
    unit[i] = 1;
    hessian.select(0, i).copy_(complement.curvature(complement.projected(unit)));
  }
  return hessian.add(hessian.t()).mul(0.5);
}

at::Tensor newton_step(const Complement& complement, const at::Tensor& gradient, double radius) {
  const bool whole_hessian = gradient.numel() > kFew && gradient.numel() <= kMostExact;
  return whole_hessian ? exact_step(complement, gradient, radius) : steihaug_step(complement, gradient, radius);
}

Minimum lowest_beside(const Complement& complement, const at::Tensor& base, const at::Tensor& start,
                      const MinimumOptions& options) {
  Minimum best{complement.value(base.add(start)), start};
  const double straight = complement.value(base);
  if (!(best.value <= straight)) best = {straight, at::zeros_like(start)};
  return descended(complement, base, std::move(best), options.radius, options);
}

Minimum lowest_from(const Complement& complement, const at::Tensor& base, const at::Tensor& start,
                    const MinimumOptions& options) {
  const double radius = std::min(options.radius, 4 * start.norm().item<double>());
  return descended(complement, base, {complement.value(base.add(start)), start}, radius, options);
}

}  // namespace dds
