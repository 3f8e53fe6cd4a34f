#include "src/llc/chain.hpp"

#include <ATen/ops/dot.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

/// One step in so many is judged as a Metropolis proposal, at the price of one more gradient on the same batch.
constexpr std::int64_t kJudgeEvery = 50;

double inner(const at::Tensor& a, const at::Tensor& b) { return at::dot(a, b).item<double>(); }

}  // namespace

Chain::Chain(const Objective& objective, Posterior posterior, std::uint64_t seed, std::uint64_t number)
    : objective_(objective),
      posterior_(posterior),
      noise_(generator_for(objective.start().device(), seed, 2 * number)),
      sampler_(generator_for(at::kCPU, seed, 2 * number + 1)),
      weights_(objective.start().clone()) {}

Chain::Point Chain::look(const Replica& replica, const Batch& batch) {
  auto value = objective_.at(replica, batch);
  gradients_ += objective_.passes();
  auto displacement = replica.weights().sub(objective_.start());
  auto drift = value.gradient.mul_(posterior_.n_beta).add_(displacement, posterior_.gamma);
  const double distance = inner(displacement, displacement);
  return {posterior_.n_beta * value.excess, distance, std::move(displacement), std::move(drift)};
}

void Chain::record(const Point& point, double eps) {
  // n_beta grad excess . grad U, with n_beta grad excess = grad U - gamma (w - w*).
  const double slope = inner(point.drift, point.drift) - posterior_.gamma * inner(point.displacement, point.drift);
  trace_.excess.push_back(point.excess);
  trace_.bias.push_back(eps / 8 * slope);
  trace_.distance.push_back(point.distance);
}

void Chain::judge(const Point& from, const Point& to, const at::Tensor& move, double eps) {
  // log [p(w') q(w|w') / (p(w) q(w'|w))] with q(w'|w) = N(w - (eps/2) grad U(w), eps) and U the negative log density.
  const double energy = from.excess - to.excess + posterior_.gamma / 2 * (from.distance - to.distance);
  const double along = inner(move, from.drift) + inner(move, to.drift);
  const double squares = inner(to.drift, to.drift) - inner(from.drift, from.drift);
  const double log_ratio = energy + along / 2 - eps / 8 * squares;
  accepted_ += std::isnan(log_ratio) ? 0 : std::exp(std::min(0.0, log_ratio));
  ++proposals_;
}

void Chain::advance(const Replica& replica, std::int64_t steps, double eps, bool keep,
                    const std::function<bool()>& stop) {
  if (diverged_) return;
  const auto& w = replica.weights();
  w.copy_(weights_);
  auto noise = at::empty_like(weights_);
  for (std::int64_t i = 0; i < steps && !stop(); ++i, ++step_) {
    const auto batch = objective_.next(sampler_);
    const auto here = look(replica, batch);
    if (!std::isfinite(here.excess) || !std::isfinite(here.distance)) {
      diverged_ = true;
      return;
    }
    if (keep) record(here, eps);
    noise.normal_(0, std::sqrt(eps), noise_).add_(here.drift, -eps / 2);
    w.add_(noise);
    if (keep && step_ % kJudgeEvery == 0) judge(here, look(replica, batch), noise, eps);
  }
  weights_.copy_(w);
}

}  // namespace dds
