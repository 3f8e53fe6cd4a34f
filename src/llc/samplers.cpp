#include "src/llc/samplers.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "src/base/check.hpp"
#include "src/llc/chain.hpp"
#include "src/llc/pass.hpp"

namespace dds {
namespace {

/// Weights up to which MALA is the automatic sampler: its step has to shrink with their number.
constexpr std::int64_t kMalaWeights = 1000;

// ---- steps without a test: w += -(eps/2) P grad U + sqrt(eps P) noise ----

/// `averaged`: the noise is the mean of this step's and the last one's.
///
/// An Sgld step of size eps inflates the variance 1/h of a quadratic direction of curvature h of U to
/// 1/(h (1 - eps h/4)). On a quadratic the mean of (eps/8) grad F . P grad U is what this adds to the mean of F: to all
/// orders in eps, with the noise of mini-batch gradients to first order. The chain records it as the draw's bias. For
/// averaged noise it is zero.
void walk_langevin(Chain& chain, const Walk& walk, bool averaged) {
  const Replica& replica = walk.replica;
  at::Tensor drift;
  if (walk.keep.moments) drift = at::empty_like(replica.weights());
  for (std::int64_t i = 0; i < walk.steps && !walk.stop(); ++i, chain.end_step()) {
    const auto value = chain.look(replica, chain.objective().next(chain.key(Purpose::Batch)));
    if (!std::isfinite(value.excess)) return chain.diverge();
    auto pass = chain.pass_at(walk, value);
    // Before the pass, which moves these very weights.
    if (walk.keep.draws) chain.keep_weights_of(replica);
    pass.drift = drift;
    pass.moved = replica.weights();
    pass.box = walk.dynamics.box;
    pass.noise = chain.key(Purpose::Noise);
    if (averaged) {
      auto& last_noise = chain.memory();
      if (!last_noise.defined()) {
        constexpr auto kBeforeTheFirst = std::numeric_limits<std::uint64_t>::max();
        last_noise = carried_noise_like(replica.weights(), chain.key(Purpose::Noise, kBeforeTheFirst));
      }
      pass.carried = last_noise;
    }
    const auto sums = run(pass);
    if (!std::isfinite(sums.distance)) return chain.diverge();
    if (walk.keep.draws) {
      chain.record(value, walk.dynamics.n_beta * value.excess, sums, averaged ? 0 : walk.dynamics.eps);
    }
    if (walk.keep.moments) chain.add_moment(drift);
  }
}

void walk_sgld(Chain& chain, const Walk& walk) { walk_langevin(chain, walk, false); }

/// Exact on a quadratic at any eps, second order in eps elsewhere (Leimkuhler and Matthews 2013).
void walk_averaged_noise(Chain& chain, const Walk& walk) { walk_langevin(chain, walk, true); }

/// pSGLD (Li et al. 2016) without the term of P's gradient, which vanishes for a P that is fixed.
at::Tensor rmsprop(const at::Tensor& second_moment) {
  const double tiny = 1e-12 * second_moment.max().item<double>();
  return (second_moment + tiny).rsqrt();
}

// ---- Metropolis ----

/// A point of a chain: the loss there, and grad U.
struct Point {
  Objective::Value value;
  kernels::Sums sums;
  at::Tensor drift;
};

void look_at(Point& point, Chain& chain, const Walk& walk) {
  point.value = chain.look(walk.replica, chain.objective().all());
  auto pass = chain.pass_at(walk, point.value);
  pass.drift = point.drift;
  point.sums = run(pass);
}

bool within(const at::Tensor& w, const at::Tensor& start, double box) {
  return box <= 0 || w.sub(start).abs_().max().item<double>() <= box;
}

/// min(1, p(w') q(w|w') / (p(w) q(w'|w))) with q(w'|w) = N(w - (eps/2) grad U(w), eps); `step` is w' - w, and the
/// replica stands at w'.
double acceptance_probability(const Chain& chain, const Walk& walk, const Point& from, const Point& to,
                              const at::Tensor& step) {
  const Dynamics& dynamics = walk.dynamics;
  const double energy = dynamics.n_beta * (from.value.excess - to.value.excess) +
                        dynamics.gamma / 2 * (from.sums.distance - to.sums.distance);
  const double along = inner_product(step, from.drift) + inner_product(step, to.drift);
  const double log_ratio = energy + along / 2 - dynamics.eps / 8 * (to.sums.drift - from.sums.drift);
  if (!std::isfinite(log_ratio) || !within(walk.replica.weights(), chain.objective().start(), dynamics.box)) return 0;
  return std::exp(std::min(0.0, log_ratio));
}

/// An Sgld step on all samples as a proposal. Exact.
void walk_mala(Chain& chain, const Walk& walk) {
  const auto& w = walk.replica.weights();
  auto proposal = at::empty_like(w), before = at::empty_like(w);
  Point from{{}, {}, at::empty_like(w)}, to{{}, {}, at::empty_like(w)};
  look_at(from, chain, walk);
  if (!std::isfinite(from.value.excess)) return chain.diverge();
  for (std::int64_t i = 0; i < walk.steps && !walk.stop(); ++i, chain.end_step()) {
    if (walk.keep.draws) {
      chain.keep_weights_of(walk.replica);
      chain.record(from.value, walk.dynamics.n_beta * from.value.excess, from.sums, 0);
    }
    auto move = chain.pass_at(walk, from.value);
    move.moved = proposal;
    move.noise = chain.key(Purpose::Noise);
    run(move);
    before.copy_(w);
    w.copy_(proposal);
    look_at(to, chain, walk);
    const double probability = acceptance_probability(chain, walk, from, to, proposal.sub_(before));
    chain.count_proposal(probability);
    if (kernels::uniform(chain.key(Purpose::Acceptance)) < probability) {
      std::swap(from, to);
    } else {
      w.copy_(before);
    }
  }
}

// ---- the table ----

constexpr std::array kPolicies{
    SamplerPolicy{.sampler = Sampler::Sgld, .name = "sgld", .advance = walk_sgld},
    SamplerPolicy{
        .sampler = Sampler::RmspropSgld, .name = "rmsprop_sgld", .advance = walk_sgld, .preconditioner = rmsprop},
    SamplerPolicy{.sampler = Sampler::Mala, .name = "mala", .advance = walk_mala, .metropolis = true},
    SamplerPolicy{.sampler = Sampler::AveragedNoise,
                  .name = "averaged_noise",
                  .advance = walk_averaged_noise,
                  .keeps_batch_bias = true},
};

}  // namespace

const SamplerPolicy* find_policy(Sampler sampler) {
  const auto found = std::find_if(kPolicies.begin(), kPolicies.end(),
                                  [&](const SamplerPolicy& policy) { return policy.sampler == sampler; });
  return found == kPolicies.end() ? nullptr : &*found;
}

const SamplerPolicy& policy_of(Sampler sampler) {
  const SamplerPolicy* policy = find_policy(sampler);
  check(policy != nullptr, "Sampler", "value", static_cast<int>(sampler), "a member of the enumeration");
  return *policy;
}

Sampler automatic_sampler(bool full_batch, std::int64_t parameters) {
  if (!full_batch) return Sampler::Sgld;
  return parameters <= kMalaWeights ? Sampler::Mala : Sampler::AveragedNoise;
}

std::string_view to_string(Sampler sampler) {
  return sampler == Sampler::Automatic ? "automatic" : policy_of(sampler).name;
}

}  // namespace dds
