// The order of a direction in weight space at a frozen checkpoint w* (arXiv:2607.00603):
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

/// K(w) >= 0: the divergence of the model at w from the frozen one at w*. It takes all weights as one vector (p, fp64)
/// and gives a 0-d fp64 tensor, twice differentiable by autograd.
///
/// Rounding: compute it as a square, as the two functions below do. Their floor is 1e-32; that of a difference of two
/// losses is 1e-16, which hides all orders from 3 on.
using Excess = std::function<at::Tensor(const at::Tensor& weights)>;

/// The Kullback-Leibler divergence between Gaussians, f the outputs (n, ...) of a regression:
///   K(w) = (1/n) sum_i |f_i(w) - f_i(w*)|^2 / (2 sigma^2)
/// Throws InvalidArgument unless sigma is positive and finite.
Excess gaussian_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point,
                       double sigma = 1.0);

/// The Kullback-Leibler divergence between categorical distributions, f the logits (n, C):
///   K(w) = (1/n) sum_i KL(softmax f_i(w*) || softmax f_i(w))
/// It is computed as sum_c p_c* (e^(d_c) - 1 - d_c), d_c the difference of the log-probabilities.
Excess categorical_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point);

struct OrderOptions {
  /// Smallest and largest |t|, in units of the weights. 0 < t_min < t_max.
  TORCH_ARG(double, t_min) = 3e-3;
  TORCH_ARG(double, t_max) = 1e-1;
  /// Values of |t|, log-spaced, on each side of w*. At least 6.
  TORCH_ARG(std::int64_t, points) = 12;
  /// K is minimised over |v| <= cone |t|. Above 0, at most 1.
  TORCH_ARG(double, cone) = 0.25;
  /// A K below this is rounding. 0: estimated, as 100 p times what a shift of the weights by one rounding adds to K.
  TORCH_ARG(double, floor) = 0;
  /// The most Newton steps of one minimisation. At least 1.
  TORCH_ARG(std::int64_t, newton_steps) = 60;
};

enum class DirectionKind {
  Regular,      ///< K = c t^2: the Fisher metric does not vanish
  Dead,         ///< K = c t^(2k), k >= 2: singular
  Gauge,        ///< K is zero along a curve that leaves w* in this direction
  Undecided,    ///< DirectionOrder::reason says why
  NotAMinimum,  ///< K is not zero at w*, or is negative or no number nearby
};
/// "regular", "dead", "gauge", "undecided", "not_a_minimum".
std::string_view to_string(DirectionKind kind);

struct OrderPoint {
  double t = 0;
  double straight = 0;   ///< K(w* + t u)
  double followed = 0;   ///< K(w* + t u + v), the lowest that was found within the cone
  double departure = 0;  ///< |v|
};

struct DirectionOrder {
  DirectionKind kind = DirectionKind::Undecided;
  std::string reason;                    ///< of Undecided and NotAMinimum
  std::optional<double> order;           ///< k as fitted, no whole number
  std::optional<double> low, high;       ///< interval of k
  std::optional<double> log_scale;       ///< log c
  std::optional<double> straight_order;  ///< k along the straight line, which takes a bent gauge for a singularity
  bool followed = false;                 ///< `order` is that of the curve, not of the straight line
  double floor = 0;                      ///< a K below was taken for rounding
  std::vector<OrderPoint> points;        ///< t ascending
};

/// Fits the order k of `direction` at `point` = w*. u is the direction, normalised.
///
/// 1. *Straight line.* If K(w* + t u) is quadratic in t, the direction is regular, whatever surrounds it.
/// 2. *Curve.* Otherwise v(t) minimises K(w* + t u + v) over v orthogonal to u with |v| <= cone |t|. Newton's method in
///    a trust region: with the whole Hessian for 17 to 512 weights, by conjugate gradients for others.
///    With |v| ~ |t|^p:
///      p > 1.3   the curve w* + t u + v(t) is tangent to u, and K along it counts: a valley or an orbit that bends;
///      else      the minimisers belong to another direction, and the straight line counts. (w1 w2)^2 along (1, 1) has
///                order 2, though K vanishes 45 degrees off.
/// 3. *Gauge.* If the K that counts is below 1,000 floors at all points, the direction is a gauge.
/// 4. *Order.* Otherwise, over the points above 1,000,000 floors, least squares of
///      log K = a + 2 k log |t| + corrections in t, t^2 and the sign of t.
///    Half of the interval of k: 2.2 standard errors and the distance to the fit without the largest third of log |t|,
///    added as squares. k is decided if the interval is at most 1/2 long and holds one whole number.
///
/// Valid input: point (p, fp64, CPU); direction of the same shape and type, finite and not zero; options in range.
/// Throws InvalidArgument for any other, and for an excess that gives no 0-d fp64 tensor.
/// Cost: ten to a hundred double backward passes a point.
DirectionOrder direction_order(const Excess& excess, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options = {});

}  // namespace dds
