// The lowest point of K beside a line: Newton's method in a trust region, over the complement of the line's direction.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "src/theory/landscape.hpp"

namespace dds {

/// K, its gradient and its Hessian's products over the vectors orthogonal to `direction` (a unit vector).
class Complement {
 public:
  Complement(Landscape& landscape, at::Tensor direction) : landscape_(&landscape), direction_(std::move(direction)) {}

  double value(const at::Tensor& weights) const { return landscape_->value(weights); }
  /// The gradient of K itself. Its part along the direction tells how much of the rest is rounding.
  at::Tensor whole_gradient(const at::Tensor& weights) const { return landscape_->gradient(weights); }
  /// The Hessian at the point of the last gradient, times v, projected.
  at::Tensor curvature(const at::Tensor& v) const { return projected(landscape_->curvature(v)); }
  /// v less its part along the direction.
  at::Tensor projected(const at::Tensor& v) const;

 private:
  Landscape* landscape_;
  at::Tensor direction_;
};

/// Most weights of which a whole Hessian is taken.
inline constexpr std::int64_t kMostExact = 512;

/// The Hessian over the complement at the point of the last gradient, by its products with the unit vectors.
at::Tensor hessian_of(const Complement& complement, const at::Tensor& gradient);

/// The step of at most `radius` that lowers the quadratic model at the point of the last gradient most.
at::Tensor newton_step(const Complement& complement, const at::Tensor& gradient, double radius);

struct MinimumOptions {
  double radius;       ///< |v| is at most this
  std::int64_t steps;  ///< Newton steps, at most
  double floor;        ///< a K at or below this is rounding: the search ends there
};

struct Minimum {
  double value;  ///< K(base + v)
  at::Tensor v;
};

/// The minimum of K(base + v) over v in the complement with |v| <= radius, searched from v = start, or from v = 0 where
/// K is lower there. A local minimum; never above K(base).
Minimum lowest_beside(const Complement& complement, const at::Tensor& base, const at::Tensor& start,
                      const MinimumOptions& options);

/// The minimum that a descent from v = start leads to, whether or not it lies below K(base): one of those nearest to
/// the start. For where v = 0 is stationary by symmetry, so that nothing leads away from it.
Minimum lowest_from(const Complement& complement, const at::Tensor& base, const at::Tensor& start,
                    const MinimumOptions& options);

}  // namespace dds
