#include "src/llc/sampling.hpp"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "src/llc/gamma_search.hpp"
#include "src/llc/lower_point.hpp"
#include "src/llc/rounding.hpp"
#include "src/llc/streams.hpp"
#include "src/model/random.hpp"

namespace dds {
namespace {

constexpr std::int64_t kPilotSteps = 64;
/// Pilots that are tried, each with a fourth of the step of the one before: enough for any unit of the weights.
constexpr int kPilots = 100;
/// Gammas that pilots are tried at.
constexpr int kPilotGammas = 4;
/// Burn-in comes in two stretches, each followed by a look at the curvature where the chains stand.
constexpr int kBurnInStretches = 2;
/// Draws come in so many rounds over all chains, so that chains are of one length when time runs out.
constexpr std::int64_t kRounds = 20;
/// Blocks of a Metropolis burn-in after which the curvature is looked at again.
constexpr int kAdaptationLooks = 5;

/// Draws of the weights that a chain keeps for the look at what no chain saw, and weights up to which it is taken.
constexpr std::int64_t kKeptWeights = 64;
constexpr std::int64_t kMostWeights = 1000;

/// Mini-batches at the end of each chain by which their noise is measured, to about 15 %.
constexpr std::int64_t kNoiseBatches = 64;

/// Passes of the probe that the looks beside the chains mostly take: that time is kept for them.
constexpr double kPassesBeside = 300;

/// Chains from whose ends a point below w* is looked for.
constexpr int kLooksBelow = 2;

/// Curvature is looked at on all samples, or on several mini-batches' worth of them.
Batch probe_batch(const LlcOptions& options, const Objective& objective) {
  const auto size = 4 * options.batch_size().value_or(0);
  if (objective.full_batch() || size >= objective.samples()) return objective.all();
  return objective.draw(size, {mixed(options.seed(), kProbeStream), 0, 0});
}

Dynamics dynamics_of(const LlcOptions& options, const Objective& objective) {
  Dynamics dynamics;
  dynamics.sampler = options.sampler() == Sampler::Automatic
                         ? automatic_sampler(objective.full_batch(), objective.start().numel())
                         : options.sampler();
  dynamics.n_beta = objective.n_beta(options.n_beta());
  dynamics.box = options.box().value_or(0);
  return dynamics;
}

}  // namespace

Sampling::Sampling(const LlcOptions& options, const Objective& objective, const std::vector<Replica>& replicas,
                   Watch& watch)
    : options_(options),
      objective_(objective),
      replicas_(replicas),
      watch_(watch),
      dynamics_(dynamics_of(options, objective)),
      policy_(&policy_of(dynamics_.sampler)),
      step_rule_(options, dynamics_.n_beta, objective.batch_size()),
      budget_(options, options.chains() * objective.passes()),
      probe_(objective, probe_batch(options, objective),
             generator_for(objective.start().device(), options.seed(), kCurvatureStream)) {
  for (std::int64_t i = 0; i < options.chains(); ++i) {
    const auto kept = options.keep_weights() > 0 || !looks_elsewhere() ? options.keep_weights() : kKeptWeights;
    chains_.emplace_back(objective, options.seed(), static_cast<std::uint64_t>(i)).keep_weights(kept);
  }
}

// ---- calibration ----

void Sampling::calibrate(std::optional<double> gamma) {
  const double begin = watch_.seconds();
  const auto before = probe_.gradients();
  look();
  const auto passes = static_cast<double>(std::max<std::int64_t>(1, probe_.gradients() - before));
  watch_.reserve(kPassesBeside * (watch_.seconds() - begin) / passes);
  dynamics_.gamma = gamma.value_or(gamma_rule(dynamics_.n_beta, typical_curvature()));
  run_pilot();
  for (int i = 1; i < kPilotGammas && !gamma; ++i) {
    // A pilot that gamma kept near w* has not seen what there is.
    const double less = gamma_rule(dynamics_.n_beta, typical_curvature());
    if (!(less < dynamics_.gamma / 4)) break;
    dynamics_.gamma = less;
    run_pilot();
  }
  if (policy_->preconditioner) precondition();
}

double Sampling::typical_curvature() const { return places_ > 0 ? std::sqrt(squares_ / places_) : 0; }

/// Where the first replica stands.
void Sampling::look(const at::Tensor& scale) {
  step_rule_.see(probe_.largest(replicas_[0], scale));
  if (options_.gamma()) return;
  const double square = probe_.mean_square(replicas_[0]);
  if (!std::isfinite(square)) return;
  squares_ += square;
  ++places_;
}

void Sampling::run_pilot() {
  const double at_start = step_rule_.mu_max();
  double longest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kPilots && !watch_.over(); ++i) {
    const auto too_long = walk_pilot(longest);
    if (!too_long) return;
    step_rule_.forget(at_start);
    longest = *too_long / 4;
  }
}

/// A chain that looks at the curvature before each of its first steps and then ever less often. At a singular point the
/// Hessian may vanish (w1^2 w2^2 at 0): the first step, made for gamma alone, lands where it does not. Returns that
/// step if it was too long: the loss is then far above that of the draws, n beta (L - L_0) <= d/2 on average.
std::optional<double> Sampling::walk_pilot(double longest) {
  Chain pilot(objective_, options_.seed(), kPilotStream);
  auto dynamics = dynamics_;
  dynamics.sampler = Sampler::Sgld;
  const double too_high = 10 * (20 + static_cast<double>(objective_.start().numel()));
  std::optional<double> too_long;
  std::int64_t next_look = 1;
  forget_looks();
  for (std::int64_t step = 1; step <= kPilotSteps && !too_long && !watch_.over(); ++step) {
    const double last = dynamics.eps;
    dynamics.eps = std::min(longest, step_rule_.calibration_eps(dynamics.gamma));
    pilot.clear_draws();
    pilot.advance(replicas_[0], dynamics, 1, {.draws = true}, [this] { return watch_.tick(); });
    const auto& excess = pilot.trace().excess;  // before this step
    if (step > 1 && (pilot.diverged() || (!excess.empty() && excess[0] > too_high))) too_long = last;
    if (too_long || step < next_look) continue;
    look();
    next_look = step < 8 ? step + 1 : step + step / 3;
  }
  other_passes_ += pilot.gradients();
  return too_long;
}

/// The sampler's P, with a mean of 1, from a stretch of plain chains. Stays 1 where a chain diverges.
void Sampling::precondition() {
  auto plain = dynamics_;
  plain.sampler = Sampler::Sgld;
  plain.eps = step_rule_.calibration_eps(plain.gamma);
  advance_chains(plain, kPilotSteps, {});
  advance_chains(plain, 4 * kPilotSteps, {.draws = false, .moments = true});
  at::Tensor moments;
  for (const auto& chain : chains_) {
    if (chain.diverged() || !chain.moments().defined()) return;
    moments = moments.defined() ? moments + chain.moments() : chain.moments();
  }
  const auto preconditioner = policy_->preconditioner(moments);
  dynamics_.scale = (preconditioner / preconditioner.mean()).sqrt();
  step_rule_.precondition(std::pow(dynamics_.scale.max().item<double>(), 2));
  look_where_chains_stand();
}

void Sampling::look_where_chains_stand() {
  forget_looks();
  for (const auto& chain : chains_) {
    if (chain.diverged() || watch_.over()) continue;
    if (!std::exchange(chains_seen_, true)) step_rule_.forget();
    replicas_[0].weights().copy_(chain.weights());
    look(dynamics_.scale);
  }
  if (const auto seen = heat()) step_rule_.see_noise(seen->by_eps, seen->lambda);
}

std::optional<Sampling::Heat> Sampling::heat() {
  if (objective_.full_batch() || watch_.over()) return std::nullopt;
  const double n_beta = dynamics_.n_beta;
  Heat heat{0, 0};
  double places = 0;
  for (const auto& chain : chains_) {
    if (chain.diverged()) continue;
    replicas_[0].weights().copy_(chain.weights());
    const kernels::RandomKey key{mixed(options_.seed(), kNoiseStream), noises_++ * kNoiseBatches, 0};
    const auto noise = objective_.noise(replicas_[0], dynamics_.scale, kNoiseBatches, key);
    other_passes_ += kNoiseBatches * objective_.passes();
    heat.by_eps += n_beta * n_beta * noise.trace / 8;
    heat.lambda += n_beta * noise.excess;
    ++places;
  }
  if (places == 0 || !std::isfinite(heat.by_eps)) return std::nullopt;
  return Heat{heat.by_eps / places, heat.lambda / places};
}

Stage Sampling::with_heat(Stage stage) {
  if (const auto seen = heat()) stage.batch_heat = stage.step_size * seen->by_eps;
  return stage;
}

double Sampling::descent(double gamma, bool run_ended) {
  const auto& gradient = objective_.start_gradient();
  if (run_ended) return std::pow(dynamics_.n_beta * gradient.norm().item<double>(), 2) / gamma;
  replicas_[0].weights().copy_(objective_.start());
  return probe_.descent(replicas_[0], gradient, dynamics_.n_beta, gamma);
}

bool Sampling::looks_elsewhere() const {
  return objective_.full_batch() && !options_.box() && options_.kind() == LlcKind::Plain &&
         objective_.start().numel() <= kMostWeights;
}

std::function<bool()> Sampling::stop() {
  return [this] {
    cut_short_ = cut_short_ || watch_.over();
    return cut_short_;
  };
}

Saddle Sampling::saddle(double gamma, double descent) {
  auto saddle = find_saddle(probe_, objective_, replicas_[0], dynamics_.n_beta, gamma, stop());
  other_passes_ += saddle.passes;
  int looks = objective_.full_batch() && !options_.box() ? kLooksBelow : 0;
  for (const auto& chain : chains_) {
    if (chain.diverged() || looks-- <= 0) continue;
    const auto lower = lower_point(objective_, replicas_[0], chain.weights(), dynamics_.n_beta, gamma, h_max(), stop());
    if (std::isfinite(lower.f)) saddle.taken_off = std::max(saddle.taken_off, -lower.f - descent);
    other_passes_ += lower.passes;
  }
  return saddle;
}

std::optional<double> Sampling::rounding() {
  std::vector<at::Tensor> points;
  for (const auto& chain : chains_) {
    if (!chain.diverged()) points.push_back(chain.weights());
  }
  const auto rounding = rounding_of(objective_, replicas_[0], points);
  if (rounding) other_passes_ += 3 * std::ssize(points);
  return rounding ? std::optional(dynamics_.n_beta * *rounding) : std::nullopt;
}

std::optional<Elsewhere> Sampling::elsewhere(const Stage& stage, const at::Tensor& weights, double reach) {
  if (!looks_elsewhere() || !weights.defined() || weights.size(0) < 2) return std::nullopt;
  const auto generator = generator_for(objective_.start().device(), options_.seed(), kElsewhereStream);
  const auto found =
      look_elsewhere(objective_, replicas_[0], stage, weights, dynamics_.n_beta, reach, generator, stop());
  other_passes_ += found.passes;
  return found;
}

// ---- chains at one gamma and step ----

Stage Sampling::sample(double gamma, double target) {
  dynamics_.gamma = gamma;
  // A Metropolis step that was adapted goes on from the last gamma.
  if (!adapted_) dynamics_.eps = step_rule_.eps(gamma);
  const auto reserve = budget_.reserve(affordable(), !options_.gamma(), halves_step());
  const auto done = policy_->metropolis && step_rule_.automatic() ? burn_in_adapting() : burn_in();
  return with_heat(draw(done, target, reserve));
}

Stage Sampling::sample_at_half_step(const Stage& whole, double target) {
  // Chains are in their stationary state already, unless they have been to another gamma since.
  const auto steps =
      dynamics_.gamma == whole.gamma ? std::min<std::int64_t>(whole.burn_in, 4 * kPilotSteps) : whole.burn_in;
  dynamics_.gamma = whole.gamma;
  dynamics_.eps = whole.step_size / 2;
  advance_chains(dynamics_, steps, {});
  return draw(steps, target, 0);
}

/// Returns the steps that it took.
std::int64_t Sampling::burn_in() {
  std::int64_t done = 0;
  for (int left = kBurnInStretches; left > 0 && !watch_.over(); --left) {
    const auto stretch = std::max<std::int64_t>(0, burn_in_length() - done) / left;
    expect(burn_in_length() - done);
    advance_chains(dynamics_, stretch, {});
    done += stretch;
    look_where_chains_stand();
    dynamics_.eps = step_rule_.eps(dynamics_.gamma);
  }
  return done;
}

/// The same, while it brings the step to its acceptance: on the mean over all chains, so that it depends on no thread.
std::int64_t Sampling::burn_in_adapting() {
  for (auto& chain : chains_) chain.take_acceptance();  // that of another gamma
  StepAdaptation adaptation(dynamics_.eps, adapted_);
  std::int64_t done = 0;
  for (int block = 0; block < StepAdaptation::kBlocks && !watch_.over(); ++block) {
    // The length follows the step, which it is found with.
    const auto steps = (burn_in_length() - done) / (StepAdaptation::kBlocks - block);
    if (steps <= 0) continue;
    expect(burn_in_length() - done);
    advance_chains(dynamics_, steps, {});
    done += steps;
    double acceptance = 0;
    for (auto& chain : chains_) acceptance += chain.take_acceptance() / static_cast<double>(chains_.size());
    if (!std::isfinite(acceptance)) break;
    if ((block + 1) % kAdaptationLooks == 0) look_where_chains_stand();
    dynamics_.eps = adaptation.after(block, acceptance, h_max());
  }
  if (const auto mean = adaptation.mean(h_max())) {
    dynamics_.eps = *mean;
    adapted_ = true;
  }
  return done;
}

/// `reserve`: steps per chain of the budget that are to be left over.
Stage Sampling::draw(std::int64_t burn_in, double target, std::int64_t reserve) {
  for (auto& chain : chains_) chain.clear_draws();
  const std::int64_t draws = budget_.first_draws(relaxation(), affordable());
  expect(draws);
  draw_in_rounds(draws);
  Stage stage = summed_up();
  stage.burn_in = burn_in;
  return draw_until(std::move(stage), target, reserve);
}

Stage Sampling::draw_on(const Stage& stage, double target) {
  return with_heat(draw_until(stage, target, budget_.reserve(affordable(), false, halves_step())));
}

Stage Sampling::draw_until(Stage stage, double target, std::int64_t reserve) {
  const bool whole_distance = options_.gamma().has_value();
  // Without a standard error nothing varies, and more draws would change nothing.
  while (budget_.automatic_draws() && stage.standard_error && !stage.settled(target, whole_distance) &&
         !watch_.over()) {
    const auto more = std::min(stage.draws, affordable() - reserve);
    if (more < stage.draws / 8) break;
    expect(more);
    draw_in_rounds(more);
    const auto burn_in = stage.burn_in;
    stage = summed_up();
    stage.burn_in = burn_in;
  }
  return stage;
}

void Sampling::draw_in_rounds(std::int64_t draws) {
  for (std::int64_t round = 0; round < kRounds && !watch_.over(); ++round) {
    advance_chains(dynamics_, draws * (round + 1) / kRounds - draws * round / kRounds, {.draws = true});
  }
}

// ---- on threads and ranks ----

RunChains Sampling::run_chains() {
  return [this](const std::vector<std::size_t>& chains, const std::function<void(std::size_t, const Replica&)>& work) {
    run_on(replicas_, chains.size(), watch_, [&](std::size_t i, const Replica& replica) { work(chains[i], replica); });
  };
}

void Sampling::advance_chains(const Dynamics& dynamics, std::int64_t steps, Keep keep) {
  advance(options_.ranks().get(), chains_, objective_, dynamics, steps, keep, watch_, run_chains());
}

void Sampling::serve() { dds::serve(*options_.ranks(), chains_, objective_, watch_, run_chains()); }

std::int64_t Sampling::passes_spent() const {
  std::int64_t passes = objective_.start_passes() + probe_.gradients() + other_passes_;
  for (const auto& chain : chains_) passes += chain.gradients();
  return passes;
}

}  // namespace dds
