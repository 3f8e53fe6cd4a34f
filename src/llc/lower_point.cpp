#include "src/llc/lower_point.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include "src/llc/pass.hpp"

namespace dds {
namespace {

constexpr int kSteps = 60, kMemory = 10, kHalvings = 12;
constexpr double kEnough = 1e-4;   // of the slope, for a step to count (Armijo)
constexpr double kStalled = 1e-3;  // a step of L-BFGS that lowers U by less, against 1 + |U|, is one of the last

struct Place {
  at::Tensor w, gradient;  ///< of U
  double f = 0, u = 0;
};

/// -H grad U, with H the inverse of the Hessian as the last steps tell it.
class Direction {
 public:
  explicit Direction(double h_max) : scale_(1 / h_max) {}

  void learn(const Place& from, const Place& to) {
    auto step = to.w - from.w, change = to.gradient - from.gradient;
    const double bend = inner_product(step, change);
    if (!(bend > 0)) return;
    scale_ = bend / inner_product(change, change);
    pairs_.push_back({std::move(step), std::move(change), 1 / bend});
    if (pairs_.size() > kMemory) pairs_.pop_front();
  }

  at::Tensor at(const Place& point) const {
    auto d = -point.gradient;
    std::vector<double> taken;
    for (auto pair = pairs_.rbegin(); pair != pairs_.rend(); ++pair) {
      taken.push_back(pair->over_bend * inner_product(pair->step, d));
      d.sub_(pair->change, taken.back());
    }
    d.mul_(scale_);
    for (const auto& pair : pairs_) {
      d.add_(pair.step, taken.back() - pair.over_bend * inner_product(pair.change, d));
      taken.pop_back();
    }
    return d;
  }

 private:
  struct Pair {
    at::Tensor step, change;
    double over_bend;
  };
  std::deque<Pair> pairs_;
  double scale_;
};

}  // namespace

LowerPoint lower_point(const Objective& objective, const Replica& replica, const at::Tensor& weights, double n_beta,
                       double gamma, double h_max, const std::function<bool()>& stop) {
  LowerPoint result;
  const auto look = [&](at::Tensor w) {
    replica.weights().copy_(w);
    result.passes += objective.passes();
    const auto value = objective.at(replica, objective.all());
    WeightPass pass;
    pass.gradient = value.gradient;
    pass.weights = replica.weights();
    pass.start = objective.start();
    pass.slope = value.slope;
    pass.n_beta = n_beta;
    pass.gamma = gamma;
    pass.drift = at::empty_like(w);
    const double distance = run(pass).distance, f = n_beta * value.excess;
    return Place{std::move(w), pass.drift, f, f + gamma / 2 * distance};
  };
  Direction direction(h_max);
  auto here = look(weights.clone());
  int stalls = 0;
  for (int i = 0; i < kSteps && stalls < 3 && std::isfinite(here.u) && !stop(); ++i) {
    const auto d = direction.at(here);
    const double slope = inner_product(here.gradient, d);
    if (!(slope < 0)) break;
    double length = 1;
    auto next = look(here.w + d);
    for (int j = 0; j < kHalvings && !(next.u <= here.u + kEnough * length * slope); ++j) {
      length /= 2;
      next = look(here.w + d * length);
    }
    if (!(next.u < here.u)) break;
    stalls = here.u - next.u < kStalled * (1 + std::abs(here.u)) ? stalls + 1 : 0;
    direction.learn(here, next);
    here = std::move(next);
  }
  result.f = here.f;
  return result;
}

}  // namespace dds
