// One chain of stochastic gradient Langevin dynamics.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "src/llc/objective.hpp"
#include "src/model/random.hpp"

namespace dds {

/// The density exp(-n_beta excess(w) - gamma/2 |w - w*|^2).
struct Posterior {
  double n_beta;
  double gamma;
};

/// w += -(eps/2) (n_beta grad excess(w) + gamma (w - w*)) + sqrt(eps) N(0, I), from w*.
///
/// The chain holds its weights and its generators and runs on whatever replica it is lent, so that its course depends
/// on nothing but the seed and its number.
class Chain {
 public:
  Chain(const Objective& objective, Posterior posterior, std::uint64_t seed, std::uint64_t number);

  struct Trace {
    std::vector<double> excess;    ///< n_beta excess(w)
    std::vector<double> bias;      ///< its discretisation bias, (eps/8) n_beta grad excess . grad U, see `advance`
    std::vector<double> distance;  ///< |w - w*|^2
  };

  /// Runs `steps` steps of size `eps`, or fewer if `stop` says so before one, or if the chain diverges. With `keep`
  /// each step leaves one draw.
  ///
  /// A step of size eps inflates the variance 1/h of a quadratic direction of curvature h (of U, the negative log
  /// density) to 1/(h (1 - eps h/4)). On a quadratic the mean of (eps/8) grad f . grad U is what this adds to that of
  /// f = n_beta excess, to all orders in eps, the noise of mini-batch gradients included to first order; `bias` is it.
  void advance(const Replica& replica, std::int64_t steps, double eps, bool keep, const std::function<bool()>& stop);

  /// The chain's weights, for a look at the curvature there.
  const at::Tensor& weights() const { return weights_; }
  bool diverged() const { return diverged_; }
  const Trace& trace() const { return trace_; }
  std::int64_t gradients() const { return gradients_; }
  /// Sum over the steps looked at of their acceptance probability as Metropolis proposals, and their number.
  double accepted() const { return accepted_; }
  std::int64_t proposals() const { return proposals_; }

 private:
  /// Everything at one point that a step needs.
  struct Point {
    double excess;            // n_beta excess(w)
    double distance;          // |w - w*|^2
    at::Tensor displacement;  // w - w*
    at::Tensor drift;         // grad U(w) = n_beta grad excess(w) + gamma (w - w*)
  };
  Point look(const Replica& replica, const Batch& batch);
  void record(const Point& point, double eps);
  void judge(const Point& from, const Point& to, const at::Tensor& move, double eps);

  const Objective& objective_;
  Posterior posterior_;
  at::Generator noise_;
  at::Generator sampler_;  // of mini-batches, on the CPU
  at::Tensor weights_;
  Trace trace_;
  bool diverged_ = false;
  std::int64_t step_ = 0;
  std::int64_t gradients_ = 0;
  std::int64_t proposals_ = 0;
  double accepted_ = 0;
};

}  // namespace dds
