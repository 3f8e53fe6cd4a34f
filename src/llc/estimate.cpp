#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/recorder.hpp>
#include <memory>
#include <thread>
#include <utility>

#include "src/llc/calibration.hpp"
#include "src/llc/chain.hpp"
#include "src/llc/diagnostics.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/verdict.hpp"
#include "src/llc/workers.hpp"
#include "src/model/guard.hpp"
#include "src/model/replica.hpp"

namespace dds {
namespace {

constexpr std::int64_t kMinDraws = 20;
/// Streams of the seed beside those of the chains, which count from 0.
constexpr std::uint64_t kPilotStream = 1ull << 40;
constexpr std::uint64_t kProbeStream = 1ull << 42;
/// Steps of the pilot chain.
constexpr std::int64_t kPilotSteps = 64;
/// Burn-in runs in so many stages of doubling length, each followed by a look at the curvature where the chains stand.
constexpr int kBurnInStages = 4;
/// Draws come in so many rounds over all chains, so that chains are of one length when time runs out.
constexpr std::int64_t kRounds = 20;
/// Samples that a clone must give the original's gradient on.
constexpr std::int64_t kComparedSamples = 32;
/// Of the bound of the noise of mini-batches, what the automatic step uses up.
constexpr double kBatchNoiseAim = 0.9 * LlcBounds::kBatchNoise;

template <class T>
void require(bool holds, const char* option, T value, const char* expected) {
  if (!holds) throw InvalidArgument(fmt::format("LlcOptions: {} = {}; expected {}", option, value, expected));
}

void check(const LlcOptions& o) {
  const auto zero_or_positive = [](double value) { return value >= 0 && std::isfinite(value); };
  require(o.chains() >= 1, "chains", o.chains(), "at least 1");
  require(o.draws() == 0 || o.draws() >= kMinDraws, "draws", o.draws(), "0 (automatic) or at least 20");
  require(o.burn_in() >= -1, "burn_in", o.burn_in(), "-1 (automatic), 0 or more");
  require(o.batch_size() >= 0, "batch_size", o.batch_size(), "0 (all samples) or more");
  require(zero_or_positive(o.step_size()), "step_size", o.step_size(), "0 (automatic) or a positive number");
  require(o.relative_step() > 0 && o.relative_step() < 2, "relative_step", o.relative_step(),
          "a number between 0 and 2 (at 4 a chain is unstable)");
  require(zero_or_positive(o.localization()), "localization", o.localization(), "0 (automatic) or a positive number");
  require(zero_or_positive(o.n_beta()), "n_beta", o.n_beta(), "0 (n / log n) or a positive number");
  require(o.max_relative_distance() > 0, "max_relative_distance", o.max_relative_distance(), "a positive number");
  require(o.threads() >= 0, "threads", o.threads(), "0 (the machine's cores) or more");
  require(zero_or_positive(o.max_seconds()), "max_seconds", o.max_seconds(), "0 (no limit) or a positive number");
}

void check(const LikelihoodPtr& likelihood, const Data& data, const Forward& forward, const LlcOptions& options) {
  check(options);
  if (!likelihood) throw InvalidArgument("estimate_llc: no likelihood");
  if (!forward) throw InvalidArgument("estimate_llc: no forward");
  const auto samples = data.size();
  if (!data.targets.defined()) throw InvalidArgument("estimate_llc: the data has no targets");
  if (samples < options.batch_size()) {
    throw InvalidArgument(
        fmt::format("estimate_llc: {} samples; expected at least batch_size = {}", samples, options.batch_size()));
  }
  if (samples < 2 && options.n_beta() == 0) {
    throw InvalidArgument("estimate_llc: 1 sample, and n beta = n / log n needs at least 2");
  }
}

/// The model itself, not owned: the caller keeps it.
std::shared_ptr<torch::nn::Module> borrow(torch::nn::Module& model) { return {std::shared_ptr<void>(), &model}; }

/// One call of estimate_llc.
class Estimation {
 public:
  Estimation(torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& data, const Forward& forward,
             const LlcOptions& options)
      : options_(options),
        watch_(options.max_seconds(), options.progress()),
        names_(trainable_parameters(model)),
        guard_(model, {.dtype = std::nullopt, .require_grad = false}),
        replicas_{Replica(borrow(model), forward, names_)},
        objective_(likelihood, data, options.kind(), options.batch_size(), replicas_[0]),
        probe_(objective_, probe_batch(),
               generator_for(objective_.start().device(), options.seed(), kProbeStream + 1)) {
    describe();
    add_replicas(model, forward);
  }

  LlcEstimate run() {
    const bool finite = std::isfinite(estimate_.baseline);
    if (finite) calibrate();
    for (std::int64_t i = 0; i < options_.chains(); ++i) {
      chains_.emplace_back(objective_, posterior(), options_.seed(), static_cast<std::uint64_t>(i));
    }
    if (finite) {
      choose_lengths();
      burn_in();
      sample();
    }
    summarise();
    estimate_.seconds = watch_.seconds();
    judge(estimate_, options_);
    return estimate_;
  }

 private:
  Posterior posterior() const { return {estimate_.n_beta, estimate_.gamma}; }
  bool automatic_step() const { return options_.step_size() == 0; }
  double h_max() const { return estimate_.n_beta * estimate_.mu_max + estimate_.gamma; }

  /// Curvature is looked at on all samples, or on several mini-batches' worth of them.
  Batch probe_batch() const {
    const auto size = 4 * options_.batch_size();
    if (objective_.full_batch() || size >= objective_.samples()) return objective_.all();
    return objective_.draw(size, generator_for(at::kCPU, options_.seed(), kProbeStream));
  }

  void describe() {
    auto& e = estimate_;
    const auto n = static_cast<double>(objective_.samples());
    e.kind = options_.kind();
    e.samples = objective_.samples();
    e.parameters = objective_.start().numel();
    e.batch_size = objective_.full_batch() ? e.samples : options_.batch_size();
    e.chains = options_.chains();
    e.seed = options_.seed();
    e.baseline = objective_.start_loss();
    e.n_beta = options_.n_beta() > 0 ? options_.n_beta() : n / std::log(n);
    e.gamma = options_.localization() > 0 ? options_.localization() : 0.03 * std::sqrt(e.n_beta);
    e.resolution = e.gamma / e.n_beta;
  }

  /// Replicas for the threads beside this one. Each must give the original's gradient bit for bit: a clone can differ
  /// where a model ties or replaces members outside reset().
  void add_replicas(torch::nn::Module& model, const Forward& forward) {
    estimate_.replicas = "in turn";
    if (!objective_.start().device().is_cpu()) return;
    const std::int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    const auto count = std::min(options_.threads() > 0 ? options_.threads() : cores, options_.chains());
    const bool by_factory = static_cast<bool>(options_.factory());
    for (std::int64_t i = 1; i < count; ++i) {
      auto module = by_factory ? build_model(options_.factory(), model) : clone_model(model);
      if (!module) return;
      Replica replica(std::move(module), forward, names_);
      if (!same_gradient(replica)) {
        if (by_factory) throw InvalidArgument("factory: its model does not give the model's own gradient");
        return;
      }
      replicas_.push_back(std::move(replica));
      estimate_.replicas = by_factory ? "factory" : "clone";
    }
  }

  bool same_gradient(const Replica& replica) const {
    const auto few = std::min(objective_.samples(), kComparedSamples);
    const Batch batch{objective_.all().data.slice(0, few), {}};
    return objective_.gradient(replicas_[0], batch).equal(objective_.gradient(replica, batch));
  }

  void calibrate() {
    const auto& original = replicas_[0];
    raise_curvature(probe_.largest(original));
    estimate_.descent = probe_.descent(original, objective_.start_gradient(), estimate_.n_beta, estimate_.gamma);
    if (automatic_step()) run_pilot();
    set_step();
  }

  void raise_curvature(double mu) {
    if (std::isfinite(mu)) estimate_.mu_max = std::max(estimate_.mu_max, mu);
  }

  void set_step() {
    auto& e = estimate_;
    const auto m = static_cast<double>(e.batch_size);
    double relative = options_.relative_step();
    if (!objective_.full_batch()) relative = std::min(relative, kBatchNoiseAim * 4 * m / e.n_beta);
    e.step_size = automatic_step() ? relative / h_max() : options_.step_size();
    e.relaxation = 2 / (e.step_size * e.gamma);
    if (!objective_.full_batch()) e.batch_noise = e.step_size * h_max() * e.n_beta / (4 * m);
  }

  /// A chain that looks at the curvature before each of its first steps and then ever less often. At a singular point
  /// the Hessian may vanish (w1^2 w2^2 at 0): the first step, made for gamma alone, lands where it does not.
  void run_pilot() {
    Chain pilot(objective_, posterior(), options_.seed(), kPilotStream);
    std::int64_t next_look = 1;
    for (std::int64_t step = 1; step <= kPilotSteps && !watch_.over(); ++step) {
      set_step();
      pilot.advance(replicas_[0], 1, estimate_.step_size, /*keep=*/false, [] { return false; });
      if (step < next_look) continue;
      raise_curvature(probe_.largest(replicas_[0]));
      next_look = step < 8 ? step + 1 : step + step / 3;
    }
    estimate_.gradients += pilot.gradients();
  }

  void choose_lengths() {
    const auto within = [](double steps, double low, double high) {
      return static_cast<std::int64_t>(std::clamp(std::ceil(steps), low, high));
    };
    auto& e = estimate_;
    e.burn_in = options_.burn_in() >= 0 ? options_.burn_in() : within(e.relaxation, 200, 5000);
    e.draws = options_.draws() > 0 ? options_.draws() : within(5 * e.relaxation, 1000, 20000);
    watch_.expect((e.burn_in + e.draws) * e.chains);
  }

  void burn_in() {
    std::int64_t done = 0;
    for (int stage = kBurnInStages; stage-- > 0 && !watch_.over();) {
      const auto until = estimate_.burn_in >> stage;
      advance(until - done, /*keep=*/false);
      done = until;
      if (automatic_step()) look_where_chains_stand();
    }
  }

  void look_where_chains_stand() {
    for (const auto& chain : chains_) {
      if (chain.diverged() || watch_.over()) continue;
      replicas_[0].weights().copy_(chain.weights());
      raise_curvature(probe_.largest(replicas_[0]));
    }
    set_step();
  }

  void sample() {
    for (std::int64_t round = 0; round < kRounds && !watch_.over(); ++round) {
      advance(estimate_.draws * (round + 1) / kRounds - estimate_.draws * round / kRounds, /*keep=*/true);
    }
  }

  void advance(std::int64_t steps, bool keep) {
    run_on(replicas_, chains_.size(), watch_, [&](std::size_t i, const Replica& replica) {
      chains_[i].advance(replica, steps, estimate_.step_size, keep, [this] { return watch_.tick(); });
    });
  }

  void summarise() {
    auto& e = estimate_;
    e.gradients += objective_.start_passes() + probe_.gradients();
    double accepted = 0;
    std::int64_t proposals = 0;
    for (const auto& chain : chains_) {
      e.gradients += chain.gradients();
      e.diverged += chain.diverged();
      e.draws = std::min(e.draws, static_cast<std::int64_t>(chain.trace().excess.size()));
      accepted += chain.accepted();
      proposals += chain.proposals();
    }
    if (proposals > 0) e.acceptance = accepted / static_cast<double>(proposals);
    if (e.diverged == 0 && e.draws > 0) summarise_traces();
  }

  void summarise_traces() {
    auto& e = estimate_;
    diagnostics::Traces corrected, bias, distance;
    double below = 0;
    for (const auto& chain : chains_) {
      const auto& trace = chain.trace();
      const auto draws = static_cast<std::ptrdiff_t>(e.draws);
      auto& values = corrected.emplace_back(trace.excess.begin(), trace.excess.begin() + draws);
      for (std::size_t t = 0; t < values.size(); ++t) {
        below += values[t] < 0;
        values[t] -= trace.bias[t];
      }
      bias.emplace_back(trace.bias.begin(), trace.bias.begin() + draws);
      distance.emplace_back(trace.distance.begin(), trace.distance.begin() + draws);
    }
    const double lambda = diagnostics::mean(corrected);
    if (!std::isfinite(lambda)) return;
    e.lambda = lambda;
    e.standard_error = diagnostics::standard_error(corrected);
    e.discretisation = diagnostics::mean(bias);
    e.r_hat = diagnostics::split_r_hat(corrected);
    e.ess = diagnostics::effective_sample_size(corrected);
    e.drift = diagnostics::drift(corrected);
    e.below_baseline = below / static_cast<double>(e.draws * e.chains);
    e.distance = std::sqrt(diagnostics::mean(distance));
    e.distance_r_hat = diagnostics::split_r_hat(distance);
    e.distance_drift = diagnostics::drift(distance);
    const double length = objective_.start().norm().item<double>();
    if (length > 0) e.relative_distance = *e.distance / length;
  }

  const LlcOptions& options_;
  const SingleThreaded single_threaded_;
  const c10::AutoGradMode with_grad_{true};
  Watch watch_;
  std::vector<std::string> names_;
  ModelGuard guard_;
  std::vector<Replica> replicas_;  // the first is the caller's model
  Objective objective_;
  CurvatureProbe probe_;
  std::vector<Chain> chains_;
  LlcEstimate estimate_;
};

}  // namespace

LlcEstimate estimate_llc(torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& data,
                         const Forward& forward, const LlcOptions& options) {
  check(likelihood, data, forward, options);
  const SuspendRecording unseen;
  return Estimation(model, likelihood, data, forward, options).run();
}

}  // namespace dds
