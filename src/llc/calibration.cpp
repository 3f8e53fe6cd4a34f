#include "src/llc/calibration.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "src/base/dtype.hpp"
#include "src/llc/pass.hpp"

namespace dds {
namespace {

constexpr int kMaxPowerIterations = 30;
constexpr double kPowerTolerance = 0.01;
constexpr int kMaxConjugateGradients = 30;
/// A descent below this is small against any learning coefficient: these are multiples of 1/(2k), k the order.
constexpr double kDescentOfInterest = 0.005;

/// Step of a central difference along a unit vector: the cube root of the rounding error balances it and the third
/// derivative.
double difference_step(const at::Tensor& weights) {
  return std::cbrt(machine_epsilon(weights.scalar_type(), "estimate_llc")) * (1 + length_of(weights));
}

}  // namespace

class CurvatureProbe::Hessian {
 public:
  Hessian(CurvatureProbe& probe, const Replica& replica) : probe_(probe), replica_(replica) {
    if (!probe_.has_double_backward_) return;
    ++probe_.gradients_;
    try {
      gradient_ = gradient(Replica::Graph::Differentiable);
    } catch (const c10::Error&) {
      probe_.has_double_backward_ = false;
    }
  }

  at::Tensor times(const at::Tensor& v) {
    probe_.gradients_ += 2;
    if (probe_.has_double_backward_) {
      try {
        return replica_.gradient(at::dot(gradient_, v), 1, Replica::Graph::Keep);
      } catch (const c10::Error&) {
        probe_.has_double_backward_ = false;
      }
    }
    return difference(v);
  }

 private:
  at::Tensor gradient(Replica::Graph graph) const { return probe_.objective_.gradient(replica_, probe_.batch_, graph); }

  at::Tensor difference(const at::Tensor& v) const {
    const auto& w = replica_.weights();
    const auto here = w.clone();
    const double length = length_of(v);
    if (length == 0) return at::zeros_like(v);
    const double step = difference_step(here) / length;
    w.add_(v, step);
    const auto ahead = gradient(Replica::Graph::Free);
    w.copy_(here).sub_(v, step);
    const auto behind = gradient(Replica::Graph::Free);
    w.copy_(here);
    return ahead.sub(behind).div_(2 * step);
  }

  CurvatureProbe& probe_;
  const Replica& replica_;
  at::Tensor gradient_;
};

CurvatureProbe::CurvatureProbe(const Objective& objective, Batch batch, at::Generator generator)
    : objective_(objective), batch_(std::move(batch)), generator_(std::move(generator)) {
  direction_ = at::zeros_like(objective.start());
}

double CurvatureProbe::largest(const Replica& replica, const at::Tensor& scale) {
  // The old direction saves iterations, the noise keeps a new one from being missed.
  auto fresh = at::empty_like(direction_).normal_(0, 1, generator_);
  auto v = direction_.add(fresh, 0.3 / length_of(fresh));
  v.div_(length_of(v));
  Hessian hessian(*this, replica);
  double curvature = 0;
  for (int i = 0; i < kMaxPowerIterations; ++i) {
    const auto product = scale.defined() ? hessian.times(v * scale).mul_(scale) : hessian.times(v);
    const double length = length_of(product);
    if (!(length > 0) || !std::isfinite(length)) return length;
    v = product / length;
    const bool settled = std::abs(length - curvature) <= kPowerTolerance * length;
    curvature = length;
    if (settled) break;
  }
  direction_ = v;
  return curvature;
}

double CurvatureProbe::mean_square(const Replica& replica) {
  const auto v = at::empty_like(direction_).normal_(0, 1, generator_);
  return std::pow(length_of(Hessian(*this, replica).times(v)) / length_of(v), 2);
}

std::vector<NegativeDirection> CurvatureProbe::negative(const Replica& replica, const std::vector<at::Tensor>& known,
                                                        const std::function<bool()>& stop) {
  Hessian hessian(*this, replica);
  const auto start = at::empty_like(direction_).normal_(0, 1, generator_);
  return negative_directions([&](const at::Tensor& v) { return hessian.times(v); }, start, known, stop);
}

double CurvatureProbe::descent(const Replica& replica, const at::Tensor& g, double n_beta, double gamma) {
  auto residual = g * n_beta;  // b - A x, x = 0
  double square = std::pow(length_of(residual), 2);
  double bound = square / gamma;
  if (!(bound > kDescentOfInterest)) return bound;
  Hessian hessian(*this, replica);
  auto direction = residual.clone();
  double reached = 0;  // b . x
  for (int i = 0; i < kMaxConjugateGradients; ++i) {
    const auto image = hessian.times(direction).mul_(n_beta).add_(direction, gamma);
    const double curvature = at::dot(direction, image).item<double>();
    if (!(curvature > 0)) break;  // no minimum nearby: the bound so far stands
    const double step = square / curvature;
    reached += step * square;  // b . direction = |residual|^2
    residual.sub_(image, step);
    const double next = std::pow(length_of(residual), 2);
    bound = std::min(bound, reached + next / gamma);
    if (next / gamma < 0.05 * reached || bound < kDescentOfInterest) break;
    direction.mul_(next / square).add_(residual);
    square = next;
  }
  return bound;
}

}  // namespace dds
