// The order k of a direction u in weight space at a frozen checkpoint w* (arXiv:2607.00603):
//
//   K(w* + t u) = c t^(2k) + ...,   c > 0
//
// u is regular if k = 1 and dead if k >= 2. It is a gauge if K stays zero along a curve that leaves w* in direction u.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

/// K(w) >= 0: the divergence of the model at w from the frozen model at w*.
/// Input: all p weights as one vector, fp64. Result: a 0-d fp64 tensor, twice differentiable by autograd.
///
/// Rounding: compute K as a square, as the two functions below do. Their rounding is 1e-32. A difference of two losses
/// has a rounding of 1e-16, which hides all orders from 3 on.
using Excess = std::function<at::Tensor(const at::Tensor& weights)>;

/// The mean Kullback-Leibler divergence between Gaussians:
///   K(w) = (1/n) sum_i |f_i(w) - f_i(w*)|^2 / (2 sigma^2)
/// `output` gives f(w), the outputs (n, ...) of a regression. `point` is w*.
/// Throws InvalidArgument unless sigma is positive and finite.
Excess gaussian_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point,
                       double sigma = 1.0);

/// The mean Kullback-Leibler divergence between categorical distributions:
///   K(w) = (1/n) sum_i KL(softmax f_i(w*) || softmax f_i(w))
/// `output` gives f(w), the logits (n, C). `point` is w*.
/// KL is computed as sum_c p_c (e^(d_c) - 1 - d_c), p_c the probability at w*, d_c = log p_c(w) - log p_c(w*).
Excess categorical_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point);

struct OrderOptions {
  /// Smallest and largest |t|, in units of the weights. 0 < t_min < t_max.
  TORCH_ARG(double, t_min) = 3e-3;
  TORCH_ARG(double, t_max) = 1e-1;
  /// Number of values of |t| on each side of w*, log-spaced. At least 6.
  TORCH_ARG(std::int64_t, points) = 12;
  /// The search beside the line is over |v| <= cone |t| (step 2 of direction_order). Above 0, at most 1.
  TORCH_ARG(double, cone) = 0.25;
  /// A K at or below this is rounding. At least 0. 0: it is estimated as 100 p times what a shift of the weights by one
  /// rounding adds to K:
  ///   100 p max_z K(w* + t_min z) / t_min^2 (u max(1, |w*|))^2,   u = 2^-53, z five fixed unit vectors.
  TORCH_ARG(double, floor) = 0;
  /// The most Newton steps of one minimisation. At least 1.
  TORCH_ARG(std::int64_t, newton_steps) = 60;
};

enum class DirectionKind {
  Regular,      ///< K = c t^2: the Fisher metric does not vanish
  Dead,         ///< K = c t^(2k), k >= 2: singular
  Gauge,        ///< K is zero along a curve that leaves w* in this direction
  Undecided,    ///< DirectionOrder::reason says why
  NotAMinimum,  ///< K is not zero at w*, or near it, on the line or beside it, it is negative, NaN or infinite
};
/// "regular", "dead", "gauge", "undecided", "not_a_minimum".
std::string_view to_string(DirectionKind kind);

struct OrderPoint {
  double t = 0;
  double straight = 0;   ///< K(w* + t u)
  double followed = 0;   ///< K(w* + t u + v), the lowest found with |v| <= cone |t|
  double departure = 0;  ///< |v|
};

struct DirectionOrder {
  DirectionKind kind = DirectionKind::Undecided;
  std::string reason;                    ///< why the kind is Undecided or NotAMinimum
  std::optional<double> order;           ///< k as fitted: not rounded to a whole number
  std::optional<double> low, high;       ///< interval of k
  std::optional<double> log_scale;       ///< log c
  std::optional<double> straight_order;  ///< k along the straight line, where a bent gauge looks dead
  bool followed = false;                 ///< true: `order` is along the curve; false: along the straight line
  double floor = 0;                      ///< a K at or below this was taken for rounding
  std::vector<OrderPoint> points;        ///< t ascending
};

/// Fits the order k of `direction` at `point` = w*. u is the direction, normalised. p is the number of weights.
///
/// 1. *Straight line.* If K(w* + t u) is quadratic in t, the direction is regular: no curve tangent to u changes the
///    term in t^2.
/// 2. *Curve.* Otherwise v(t) minimises K(w* + t u + v) over v orthogonal to u with |v| <= cone |t|. The method is
///    Newton's in a trust region: with the whole Hessian for 17 to 512 weights, by conjugate gradients for others.
///    A fit of |v| ~ |t|^q decides which values of K count:
///      q > 1.3   the curve w* + t u + v(t) is tangent to u (a bent valley or orbit): K along the curve counts;
///      else      the minimisers belong to another direction: K along the straight line counts. (For example,
///                K = (w1 w2)^2 has order 2 along (1, 1), though K vanishes 45 degrees off.)
///    Where v = 0 is stationary by symmetry alone, no gradient leads to the curve: K = (a b - c^4)^2 is zero along
///    a = b = c^2. So the search starts beside the line too, unless the first search ends at zeros of K: in the
///    directions in which K is flat to second order, at the length from which K is no longer what it is on the line.
///    What it finds is followed inwards as t^p, with the p for which K is lowest.
/// 3. *Gauge.* If the K that counts is at most 1,000 floors at all points, the direction is a gauge. Points at the rim
/// of
///    the cone do not count. If K is zero along a curve on one side of w* only, the direction is Undecided.
/// 4. *Order.* Otherwise, a least-squares fit over the points where K is above 1,000,000 floors:
///      log K = a + 2 k log |t| + corrections in t, t^2 and the sign of t.
///    The interval is k +- h with
///      h^2 = (2.2 standard errors)^2 + (distance to k of a fit without the largest third of log |t|)^2.
///    The order is decided if h <= 1/4 and a whole number >= 1 lies within max(h, 0.02) of k.
/// 5. *Window.* It has to hold below t_min too, within 1/4, as far as K is clear of rounding (at most four decades).
///    Otherwise it is Undecided: w^4 + 1e-6 w^2 has order 2 from t = 3e-3 on, and order 1 at t = 0.
///
/// That w* is a minimum is tested first, on three rays in the flat directions and by a few steps of descent beside
/// each. A region where K is negative may be missed if it is narrow, or if there are many flat directions.
///
/// Valid input: `point` (p, fp64, CPU); `direction` of the same shape and dtype, finite and not zero; options in range.
/// Throws InvalidArgument for any other input, and for an excess that is empty, gives no 0-d fp64 tensor or does not
/// depend on the weights.
/// Cost: ten to a hundred double backward passes for each value of t.
DirectionOrder direction_order(const Excess& excess, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options = {});

}  // namespace dds
