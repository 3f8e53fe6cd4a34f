// The order of a dead direction, and whether it is a gauge: what K does along it at a frozen checkpoint
// (arXiv:2607.00603).
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

/// K(w) >= 0: what the loss at w exceeds that at w* by, as a divergence from the frozen model. Takes all weights as one
/// vector (p, fp64) and gives a 0-d tensor, twice differentiable. It should be computed as a square or by excess_of: a
/// difference of two losses has a rounding floor of 1e-16, which hides every order from 3 on.
using Excess = std::function<at::Tensor(const at::Tensor& weights)>;

/// K(w) = mean over samples of |f(w) - f(w*)|^2 / (2 sigma^2), f the outputs (n, ...) of a regression: the
/// Kullback-Leibler divergence between the Gaussians. Its rounding floor is that of a square, 1e-32. Throws
/// InvalidArgument unless sigma > 0.
Excess gaussian_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point,
                       double sigma = 1.0);

/// K(w) = mean over samples of KL(softmax f(w*) || softmax f(w)), f the logits (n, C), computed as sum p* (e^d - 1 -
/// d), d the differences of the log-probabilities, which keeps the floor of a square too.
Excess categorical_excess(std::function<at::Tensor(const at::Tensor& weights)> output, const at::Tensor& point);

struct OrderOptions {
  /// Distances from the point, log-spaced, both ways: `points` each. In units of the weights.
  TORCH_ARG(double, t_min) = 3e-3;
  TORCH_ARG(double, t_max) = 1e-1;
  TORCH_ARG(std::int64_t, points) = 12;
  /// K is minimised over the complement of the direction within |v| <= cone |t|.
  TORCH_ARG(double, cone) = 0.25;
  /// K below this is rounding; 0: estimated, 100 p times what moving the weights by one rounding gives.
  TORCH_ARG(double, floor) = 0;
  /// Newton steps of one minimisation, at most.
  TORCH_ARG(std::int64_t, newton_steps) = 60;
};

enum class DirectionKind {
  Regular,      ///< K = c t^2: the Fisher metric does not vanish
  Dead,         ///< K = c t^(2k), k >= 2: singular
  Gauge,        ///< K is zero along an orbit that leaves the point in this direction
  Undecided,    ///< DirectionOrder::reason says why
  NotAMinimum,  ///< K at the point is no zero, or K is negative nearby
};
/// "regular", "dead", "gauge", "undecided", "not_a_minimum".
std::string_view to_string(DirectionKind kind);

struct OrderPoint {
  double t = 0;
  double straight = 0;   ///< K(w* + t u)
  double followed = 0;   ///< K at the lowest point found in the cone
  double departure = 0;  ///< |v| of that point: how far it is off the straight line
};

struct DirectionOrder {
  DirectionKind kind = DirectionKind::Undecided;
  std::string reason;                    ///< where the kind needs one
  std::optional<double> order;           ///< k as fitted
  std::optional<double> low, high;       ///< its interval
  std::optional<double> log_scale;       ///< log c
  std::optional<double> straight_order;  ///< k of the straight line alone, which takes a curved gauge for a singularity
  bool followed = false;           ///< the order is that of a curve tangent to the direction, not of the straight line
  double floor = 0;                ///< K below was taken for rounding
  std::vector<OrderPoint> points;  ///< ascending t
};

/// Fits the order k of K(w* + t u + v(t)) ~ c t^(2k), u the direction, normalised.
///
/// If K is quadratic along the straight line, the direction is regular. Otherwise, at each t, K is minimised over v
/// orthogonal to u within the cone (Newton steps in a trust region: with the whole Hessian from 17 to 512 weights, by
/// conjugate gradients otherwise). Where the minimisers leave the line slower than linearly, |v| ~ t^p
/// with p > 1.3, the curve that they make is tangent to u, and K along it is what counts: a valley or an orbit that
/// bends. Where they do not, they belong to another direction, and the straight line counts: (w1 w2)^2 along (1, 1) has
/// order 2 though K vanishes 45 degrees off. If K along what counts is below a thousand floors everywhere, the
/// direction is a gauge. Otherwise log K is fitted by a + 2 k log |t| + (odd and even corrections s, t, t^2) over the
/// points above a million floors; the interval joins the fit's (95 %) and the distance to the fit without the largest
/// third of |t|. An order is decided if the interval is shorter than 1/2 and holds one integer.
///
/// `point`: w* (p, fp64, CPU), `direction` of the same shape. Costs some ten to a hundred double backwards a point.
/// Throws InvalidArgument for other shapes and types, a zero or non-finite direction, options out of range, an excess
/// that is no 0-d fp64 tensor.
DirectionOrder direction_order(const Excess& excess, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options = {});

}  // namespace dds
