#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/suspend_recording.hpp>
#include <iterator>
#include <limits>
#include <memory>
#include <thread>
#include <utility>

#include "hooks/layers.hpp"
#include "src/base/glob.hpp"
#include "src/llc/calibration.hpp"
#include "src/llc/chain.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/spread.hpp"
#include "src/llc/stage.hpp"
#include "src/llc/verdict.hpp"
#include "src/llc/workers.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/random.hpp"
#include "src/model/replica.hpp"
#include "src/ranks/exchange.hpp"

namespace dds {
namespace {

constexpr std::int64_t kMinDraws = 20;
/// Streams of the seed beside those of the chains, which count from 0.
constexpr std::uint64_t kPilotStream = 1ull << 40;
constexpr std::uint64_t kProbeStream = 1ull << 42;
/// Steps of the pilot chain.
constexpr std::int64_t kPilotSteps = 64;
/// Burn-in ends in two stretches, each followed by a look at the curvature where the chains stand.
constexpr int kBurnInStretches = 2;
/// Draws come in so many rounds over all chains, so that chains are of one length when time runs out.
constexpr std::int64_t kRounds = 20;
/// Samples that a clone must give the original's gradient on.
constexpr std::int64_t kComparedSamples = 32;
/// ... and how far from w* in every weight, over 1 + |w*|.
constexpr double kComparedDistance = 0.01;
/// Of the bound of the noise of mini-batches, what the automatic step uses up.
constexpr double kBatchNoiseAim = 0.9 * LlcBounds::kBatchNoise;
/// Weights up to which MALA is the automatic sampler: its step has to shrink with their number.
constexpr std::int64_t kMalaWeights = 1000;
/// MALA's step is brought to this acceptance in so many blocks of the burn-in.
constexpr double kAcceptanceAim = 0.8;
constexpr int kAdaptationBlocks = 20;
/// Blocks after which the curvature is looked at again.
constexpr int kAdaptationLooks = 5;
/// MALA's step times h_max.
constexpr double kLongestMalaStep = 1.5;
/// The search for gamma: factor from one to the next, the lowest in units of 0.03 sqrt(n beta), the relative error of
/// the estimates far above that, the share of its last move above which a move of lambda is said not to get smaller,
/// the errors beyond which a first move is seen, the share of lambda that these may be, and the steps per chain below
/// which there is no use in another gamma.
constexpr double kGammaFactor = 4;
constexpr double kLowestGamma = 1.0 / 64;
constexpr double kApproachError = 0.03;
constexpr double kShrinkage = 0.75;
constexpr double kSeenMove = 2.5;
constexpr double kLoudestNoise = 0.06;
constexpr std::int64_t kLeastSteps = 500;
/// Share of what is left of the budget that chains at one gamma may use up.
constexpr std::int64_t kStageShare = 3;

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
  require(zero_or_positive(o.box()), "box", o.box(), "0 (none) or a positive number");
  require(o.target_error() > 0 && o.target_error() < 1, "target_error", o.target_error(), "a number between 0 and 1");
  require(o.max_gradients() >= 0, "max_gradients", o.max_gradients(), "0 (no limit) or more");
  require(o.keep_weights() >= 0, "keep_weights", o.keep_weights(), "0 (none) or more");
  require(o.max_relative_distance() > 0, "max_relative_distance", o.max_relative_distance(), "a positive number");
  require(o.threads() >= 0, "threads", o.threads(), "0 (the machine's cores) or more");
  require(zero_or_positive(o.max_seconds()), "max_seconds", o.max_seconds(), "0 (no limit) or a positive number");
}

void check(const Problem& problem, const LlcOptions& options) {
  check(options);
  check_with_targets(problem, "estimate_llc");
  const auto samples = problem.data.size();
  if (samples < options.batch_size()) {
    throw InvalidArgument(
        fmt::format("estimate_llc: {} samples; expected at least batch_size = {}", samples, options.batch_size()));
  }
  if (samples < 2 && options.n_beta() == 0) {
    throw InvalidArgument("estimate_llc: 1 sample, and n beta = n / log n needs at least 2");
  }
  if (options.sampler() == Sampler::Mala && options.batch_size() != 0 && options.batch_size() != samples) {
    throw InvalidArgument(fmt::format(
        "LlcOptions: batch_size = {} with Sampler::Mala, which compares losses over all samples; expected 0",
        options.batch_size()));
  }
}

/// Names of the parameters that move. Throws InvalidArgument if the patterns select none.
std::vector<std::string> selected_parameters(const torch::nn::Module& model, const std::vector<std::string>& patterns) {
  const auto all = trainable_parameters(model);
  if (patterns.empty()) return all;
  std::vector<std::string> selected;
  std::copy_if(all.begin(), all.end(), std::back_inserter(selected), [&](const std::string& name) {
    return std::any_of(patterns.begin(), patterns.end(),
                       [&](const std::string& pattern) { return glob_match(pattern, name); });
  });
  if (selected.empty()) {
    throw InvalidArgument(fmt::format("LlcOptions: parameters {} select none; expected some of {}",
                                      fmt::join(patterns, ", "), fmt::join(all, ", ")));
  }
  return selected;
}

Data in_fp64(const Data& data) {
  const auto convert = [](const at::Tensor& t) { return t.defined() && t.is_floating_point() ? t.to(at::kDouble) : t; };
  Data result;
  for (const auto& input : data.inputs) result.inputs.push_back(convert(input));
  result.targets = convert(data.targets);
  return result;
}

/// One call of estimate_llc.
class Estimation {
 public:
  Estimation(const Problem& problem, const LlcOptions& options)
      : options_(options),
        watch_(options.max_seconds(), options.cancelled(), options.progress()),
        names_(selected_parameters(problem.model, options.parameters())),
        guard_(problem.model,
               {.dtype = options.fp64() ? std::optional(at::kDouble) : std::nullopt, .require_grad = false}),
        replicas_{Replica(borrowed(problem.model), problem.forward, names_)},
        objective_(problem.likelihood, options.fp64() ? in_fp64(problem.data) : problem.data, options.kind(),
                   options.batch_size(), replicas_[0]),
        probe_(objective_, probe_batch(),
               generator_for(objective_.start().device(), options.seed(), kProbeStream + 1)) {
    describe();
    add_replicas(problem.model, problem.forward);
    for (std::int64_t i = 0; i < options_.chains(); ++i) {
      chains_.emplace_back(objective_, options_.seed(), static_cast<std::uint64_t>(i))
          .keep_weights(options_.keep_weights());
    }
  }

  LlcEstimate run() {
    if (std::isfinite(estimate_.baseline)) {
      calibrate();
      if (options_.localization() > 0) {
        take(sample(options_.localization(), options_.target_error()), "taken");
      } else {
        find_gamma();
      }
      if (checks_step() && estimate_.lambda && !watch_.over()) halve_step();
    }
    conclude();
    return estimate_;
  }

  /// On ranks other than the first, whose chains these are.
  void serve() { dds::serve(*options_.ranks(), chains_, objective_, watch_, run_chains()); }

 private:
  bool automatic_step() const { return options_.step_size() == 0; }
  bool metropolis() const { return dynamics_.sampler == Sampler::Mala; }
  /// With MALA there is no bias in the step to look for.
  bool checks_step() const { return !metropolis() && options_.halve_step(); }
  double h_max() const { return dynamics_.n_beta * estimate_.mu_max + dynamics_.gamma * scale_max_; }
  /// 0.03 sqrt(n beta): right for tens of weights of order 1 (src/docs/the_method.md, Gamma), and the middle of the
  /// search elsewhere.
  double gamma_by_rule() const { return 0.03 * std::sqrt(dynamics_.n_beta); }

  /// Curvature is looked at on all samples, or on several mini-batches' worth of them.
  Batch probe_batch() const {
    const auto size = 4 * options_.batch_size();
    if (objective_.full_batch() || size >= objective_.samples()) return objective_.all();
    return objective_.draw(size, {mixed(options_.seed(), kProbeStream), 0, 0});
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
    dynamics_.n_beta = e.n_beta;
    dynamics_.box = options_.box();
    dynamics_.sampler = options_.sampler();
    if (dynamics_.sampler == Sampler::Automatic) {
      dynamics_.sampler = !objective_.full_batch()       ? Sampler::Sgld
                          : e.parameters <= kMalaWeights ? Sampler::Mala
                                                         : Sampler::AveragedNoise;
    }
    e.sampler = to_string(dynamics_.sampler);
    start_length_ = objective_.start().norm().item<double>();
    const auto dtype = objective_.start().scalar_type();
    if (dtype != at::kFloat && dtype != at::kDouble) {
      throw InvalidArgument(fmt::format(
          "estimate_llc: the model's weights are {}, too coarse for a chain's steps; expected Float or Double, or "
          "LlcOptions::fp64(true)",
          c10::toString(dtype)));
    }
  }

  /// Replicas for the threads beside this one. Each must give the original's gradient bit for bit: a clone can differ
  /// where a model ties or replaces members outside reset().
  void add_replicas(torch::nn::Module& model, const Forward& forward) {
    estimate_.replicas = "in turn";
    if (!objective_.start().device().is_cpu()) return;
    const std::int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    const std::int64_t ranks = options_.ranks() ? options_.ranks()->size() : 1;
    const auto here = (options_.chains() + ranks - 1) / ranks;
    const auto count = std::min(options_.threads() > 0 ? options_.threads() : cores, here);
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

  /// Beside w*, where a loss that is exactly least has no gradient to compare.
  bool same_gradient(const Replica& replica) const {
    const auto& start = objective_.start();
    if (replica.weights().numel() != start.numel()) return false;
    const auto few = std::min(objective_.samples(), kComparedSamples);
    const Batch batch{objective_.all().data.slice(0, few), {}};
    const auto beside = at::empty_like(start)
                            .normal_(0, 1, generator_for(start.device(), options_.seed(), kProbeStream + 2))
                            .mul_(kComparedDistance * (1 + start_length_))
                            .add_(start);
    for (const Replica* each : {&replicas_[0], &replica}) each->weights().copy_(beside);
    const bool same = objective_.gradient(replicas_[0], batch).equal(objective_.gradient(replica, batch));
    for (const Replica* each : {&replicas_[0], &replica}) each->weights().copy_(start);
    return same;
  }

  // ---- the step ----

  void calibrate() {
    dynamics_.gamma = options_.localization() > 0 ? options_.localization() : first_gamma();
    raise_curvature(probe_.largest(replicas_[0]));
    run_pilot();
    if (dynamics_.sampler == Sampler::RmspropSgld) precondition();
  }

  void raise_curvature(double mu) {
    if (std::isfinite(mu)) estimate_.mu_max = std::max(estimate_.mu_max, mu);
  }

  void set_step() {
    if (!automatic_step()) {
      dynamics_.eps = options_.step_size();
      return;
    }
    const auto m = static_cast<double>(estimate_.batch_size);
    double relative = options_.relative_step();
    if (!objective_.full_batch()) relative = std::min(relative, kBatchNoiseAim * 4 * m / dynamics_.n_beta);
    dynamics_.eps = relative / h_max();
  }

  /// A chain that looks at the curvature before each of its first steps and then ever less often. At a singular point
  /// the Hessian may vanish (w1^2 w2^2 at 0): the first step, made for gamma alone, lands where it does not.
  void run_pilot() {
    Chain pilot(objective_, options_.seed(), kPilotStream);
    auto dynamics = dynamics_;
    dynamics.sampler = Sampler::Sgld;
    std::int64_t next_look = 1;
    for (std::int64_t step = 1; step <= kPilotSteps && !watch_.over(); ++step) {
      dynamics.eps = options_.relative_step() / h_max();
      pilot.advance(replicas_[0], dynamics, 1, {}, [this] { return watch_.tick(); });
      if (step < next_look) continue;
      raise_curvature(probe_.largest(replicas_[0]));
      next_look = step < 8 ? step + 1 : step + step / 3;
    }
    other_gradients_ += pilot.gradients();
  }

  /// P = 1/sqrt(E[(grad U)^2]), from a stretch of plain chains, with a mean of 1.
  void precondition() {
    auto plain = dynamics_;
    plain.sampler = Sampler::Sgld;
    plain.eps = options_.relative_step() / h_max();
    advance_chains(plain, kPilotSteps, {});
    advance_chains(plain, 4 * kPilotSteps, {.draws = false, .moments = true});
    at::Tensor moments;
    for (const auto& chain : chains_) {
      if (chain.diverged() || !chain.moments().defined()) return;
      moments = moments.defined() ? moments + chain.moments() : chain.moments();
    }
    const double tiny = 1e-12 * moments.max().item<double>();
    const auto preconditioner = (moments + tiny).rsqrt();
    dynamics_.scale = (preconditioner / preconditioner.mean()).sqrt();
    scale_max_ = std::pow(dynamics_.scale.max().item<double>(), 2);
    estimate_.mu_max = 0;
    look_where_chains_stand();
  }

  // ---- chains at one gamma and step ----

  Stage sample(double gamma, double target) {
    dynamics_.gamma = gamma;
    if (!metropolis() || dynamics_.eps == 0 || !adapted_) set_step();
    // What is left over is for further gammas, or for half the step.
    const auto share = options_.localization() == 0 ? kStageShare - 1 : checks_step() ? 1 : 0;
    const auto reserve = affordable() / kStageShare * share;
    const auto burn_in = burn_in_chains();
    return sample_on(burn_in, target, reserve);
  }

  /// `reserve`: steps per chain of the budget that are to be left over.
  Stage sample_on(std::int64_t burn_in, double target, std::int64_t reserve) {
    for (auto& chain : chains_) chain.clear_draws();
    std::int64_t draws = options_.draws() > 0 ? options_.draws() : first_length();
    watch_.expect(draws * estimate_.chains);
    advance_in_rounds(draws);
    auto stage = summed_up();
    const bool whole_distance = options_.localization() > 0;
    // Where nothing varies, more draws have no more to say.
    while (options_.draws() == 0 && stage.standard_error && !stage.settled(target, whole_distance) && !watch_.over()) {
      const auto more = std::min(draws, affordable() - reserve);
      if (more < draws / 8) break;
      watch_.expect(more * estimate_.chains);
      advance_in_rounds(more);
      draws += more;
      stage = summed_up();
    }
    stage.burn_in = burn_in;
    return stage;
  }

  Stage summed_up() const {
    const bool known = objective_.full_batch() || dynamics_.sampler != Sampler::AveragedNoise;
    return summarise(chains_, dynamics_, estimate_.parameters, known);
  }

  double relaxation() const { return 2 / (dynamics_.eps * dynamics_.gamma); }

  std::int64_t first_length() const {
    const auto longest = std::clamp<double>(static_cast<double>(affordable()) / kStageShare, 100, 2000);
    return static_cast<std::int64_t>(std::clamp(relaxation() / 4, std::min(500.0, longest), longest));
  }

  std::int64_t burn_in_length() const {
    if (options_.burn_in() >= 0) return options_.burn_in();
    // A search for gamma goes on from chains that stand at a larger one: half as long will do.
    const bool search = options_.localization() == 0;
    const auto budget = static_cast<double>(affordable());
    const double longest = std::max(200.0, std::min(std::max(5000.0, budget / (search ? 6 : 4)), budget / kStageShare));
    return static_cast<std::int64_t>(std::clamp(std::ceil(search ? relaxation() / 2 : relaxation()), 200.0, longest));
  }

  std::int64_t spent() const {
    std::int64_t gradients = objective_.start_passes() + probe_.gradients() + other_gradients_;
    for (const auto& chain : chains_) gradients += chain.gradients();
    return gradients;
  }

  /// Steps per chain that the budget still has.
  std::int64_t affordable() const {
    if (options_.max_gradients() == 0) return std::numeric_limits<std::int64_t>::max() / 4;
    return std::max<std::int64_t>(0, options_.max_gradients() - spent()) / (estimate_.chains * objective_.passes());
  }

  /// Returns the steps that it took.
  std::int64_t burn_in_chains() {
    if (metropolis() && automatic_step()) return adapt_step();
    std::int64_t done = 0;
    for (int left = kBurnInStretches; left > 0 && !watch_.over(); --left) {
      const auto stretch = std::max<std::int64_t>(0, burn_in_length() - done) / left;
      watch_.expect((burn_in_length() - done) * estimate_.chains);
      advance_chains(dynamics_, stretch, {});
      done += stretch;
      look_where_chains_stand();
      set_step();
    }
    return done;
  }

  /// Burns in while it brings MALA's step to its acceptance, by stochastic approximation on the mean over all chains,
  /// so that it depends on no thread. What remains is the mean over the second half. Returns the steps per chain.
  std::int64_t adapt_step() {
    for (auto& chain : chains_) chain.take_acceptance();  // that of another gamma
    double log_eps = std::log(dynamics_.eps), sum = 0;
    int summed = 0;
    std::int64_t done = 0;
    for (int block = 0; block < kAdaptationBlocks && !watch_.over(); ++block) {
      // The length follows the step, which it is found with.
      const auto steps = (burn_in_length() - done) / (kAdaptationBlocks - block);
      if (steps <= 0) continue;
      watch_.expect((burn_in_length() - done) * estimate_.chains);
      advance_chains(dynamics_, steps, {});
      done += steps;
      double acceptance = 0;
      for (auto& chain : chains_) acceptance += chain.take_acceptance() / static_cast<double>(chains_.size());
      if (!std::isfinite(acceptance)) break;
      const double gain = (adapted_ ? 2.0 : 4.0) / std::sqrt(1.0 + block);
      if ((block + 1) % kAdaptationLooks == 0) look_where_chains_stand();
      // A longer step would be refused wherever the curvature is largest, and the chain stay away from there.
      const double longest = std::log(kLongestMalaStep / h_max());
      log_eps = std::min(log_eps + gain * (acceptance - kAcceptanceAim), longest);
      if (2 * block >= kAdaptationBlocks) {
        sum += log_eps;
        ++summed;
      }
      dynamics_.eps = std::exp(log_eps);
    }
    if (summed > 0) dynamics_.eps = std::min(std::exp(sum / summed), kLongestMalaStep / h_max());
    adapted_ = adapted_ || summed > 0;
    return done;
  }

  /// Raises the largest curvature to that where the chains are.
  void look_where_chains_stand() {
    for (const auto& chain : chains_) {
      if (chain.diverged() || watch_.over()) continue;
      replicas_[0].weights().copy_(chain.weights());
      raise_curvature(probe_.largest(replicas_[0], dynamics_.scale));
    }
  }

  void advance_in_rounds(std::int64_t draws) {
    for (std::int64_t round = 0; round < kRounds && !watch_.over(); ++round) {
      advance_chains(dynamics_, draws * (round + 1) / kRounds - draws * round / kRounds, {.draws = true});
    }
  }

  RunChains run_chains() {
    return
        [this](const std::vector<std::size_t>& chains, const std::function<void(std::size_t, const Replica&)>& work) {
          run_on(replicas_, chains.size(), watch_,
                 [&](std::size_t i, const Replica& replica) { work(chains[i], replica); });
        };
  }

  void advance_chains(const Dynamics& dynamics, std::int64_t steps, Keep keep) {
    advance(options_.ranks().get(), chains_, objective_, dynamics, steps, keep, watch_, run_chains());
  }

  // ---- gamma ----

  /// Where the search begins: high enough that a chain stays within |w*| of w*, at 4^k times the rule's, k >= 1.
  double first_gamma() const {
    const double rule = gamma_by_rule();
    const double near = start_length_ > 0 ? static_cast<double>(estimate_.parameters) / std::pow(start_length_, 2) : 0;
    double gamma = kGammaFactor * rule;
    while (gamma < near && std::isfinite(near)) gamma *= kGammaFactor;
    return gamma;
  }

  bool is_far(const Stage& stage) const {
    return start_length_ > 0 && std::sqrt(*stage.mean_distance) > options_.max_relative_distance() * start_length_;
  }

  /// From above, where chains are short and local, down to where what is left of gamma's bias is small. Where the moves
  /// of lambda do not get smaller, as at a multiplicity m > 1 (they fall like 1/log^2 gamma) or where ever more of a
  /// landscape comes into reach, no gamma will do.
  void find_gamma() {
    const double rule = gamma_by_rule();
    const auto target = [&](double gamma) { return gamma > 5 * rule ? kApproachError : options_.target_error(); };
    Stage last = sample(first_gamma(), target(first_gamma()));
    take(last, "gamma is lowered");
    std::optional<double> last_move;
    while (last.lambda && !watch_.over()) {
      const double gamma = last.gamma / kGammaFactor;
      const Stage next = sample(gamma, target(gamma));
      if (watch_.over() && next.diverged == 0 && next.draws < last.draws) {
        note(next, "left: the run ended");
        break;
      }
      const auto moved = change(last, next);
      if (!moved) return take(next, "no finite number");
      const bool at_rule = gamma > rule / 2 && gamma < rule * 2;
      const auto left = remaining(*moved, last_move, at_rule);
      const bool audible = kSeenMove * moved->error <= kLoudestNoise * std::abs(*next.lambda);
      const auto take_next = [&](std::string outcome) {
        take(next, std::move(outcome));
        estimate_.gamma_change = moved->value;
        estimate_.gamma_change_error = moved->error;
        estimate_.gamma_bias = left.beyond_noise;
      };
      if (gamma < 2 * rule && audible && left.at_most <= LlcBounds::kGammaBias * std::abs(*next.lambda)) {
        ending_.gamma_settled = true;
        return take_next("taken");
      }
      const double move = std::abs(moved->value);
      const bool lasting = last_move && move - 2 * moved->error > kShrinkage * *last_move;
      const bool exhausted = options_.draws() == 0 && affordable() < kLeastSteps;
      if (lasting || gamma < 2 * rule * kLowestGamma || exhausted) {
        ending_.gamma_limited = fmt::format("lambda {:.4g} at gamma {:.3g}, {:.4g} at {:.3g}", *last.lambda, last.gamma,
                                            *next.lambda, next.gamma);
        // Far from w* it is another landscape: what stands is the estimate before it.
        if (is_far(next) && !is_far(last)) {
          note(next, "left: it is further from w* than w* is long");
          break;
        }
        return take_next("taken");
      }
      take_next(fmt::format("lambda moved by {:.2g} +- {:.2g}: gamma is lowered", moved->value, moved->error));
      last = next;
      last_move = move;
    }
    estimate_.trials[taken_].outcome = "taken";
  }

  /// What is left of gamma's bias after lambda has moved from one gamma to the next: the rest of a geometric series,
  /// since a bias like gamma^p falls by the same factor each time.
  struct Remaining {
    double
        at_most;  ///< with the noise of the move, unless it is the first at the rule's gamma: most often there is none
    double beyond_noise;  ///< what the move shows beyond its noise
  };
  static Remaining remaining(const Change& moved, const std::optional<double>& last_move, bool at_rule) {
    const double move = std::abs(moved.value);
    const double shown = !at_rule ? move + moved.error : move > kSeenMove * moved.error ? move : 0;
    // p between 1, also where nothing is seen, and 1/2, also where there is no move before.
    const double factor = shown == 0 ? 0.25 : std::clamp(last_move ? shown / *last_move : 0.5, 0.25, 0.5);
    const double rest = factor / (1 - factor);
    return {shown * rest, std::sqrt(std::max(0.0, move * move - moved.error * moved.error)) * rest};
  }

  // ---- what comes of it ----

  /// With half the step, for the verdict and the interval.
  void halve_step() {
    const auto whole = sample_taken_;
    // Chains stand where they must, unless they have been to another gamma since.
    const auto burn_in =
        dynamics_.gamma == whole.gamma ? std::min<std::int64_t>(whole.burn_in, 4 * kPilotSteps) : whole.burn_in;
    dynamics_.gamma = whole.gamma;
    dynamics_.eps = whole.step_size / 2;
    advance_chains(dynamics_, burn_in, {});
    const auto half = sample_on(burn_in, 1.5 * options_.target_error(), 0);
    note(half, "half the step");
    const auto moved = change(whole, half);
    if (!moved) return;
    estimate_.step_change = moved->value;
    estimate_.step_change_error = moved->error;
    // Of mini-batches' noise averaged noise keeps the first order, which SGLD's estimate of its bias takes off.
    const bool first_order = dynamics_.sampler == Sampler::AveragedNoise && !objective_.full_batch();
    estimate_.richardson = *whole.lambda + (first_order ? 2.0 : 4.0 / 3) * moved->value;
  }

  void note(const Stage& stage, std::string outcome) {
    estimate_.trials.push_back({stage.gamma, stage.step_size, stage.burn_in, stage.draws, stage.lambda,
                                stage.standard_error, std::move(outcome)});
  }

  /// The stage becomes the estimate.
  void take(const Stage& stage, std::string outcome) {
    note(stage, std::move(outcome));
    taken_ = estimate_.trials.size() - 1;
    sample_taken_ = stage;
    auto& e = estimate_;
    e.lambda = stage.lambda;
    e.standard_error = stage.standard_error;
    e.r_hat = stage.r_hat;
    e.ess = stage.ess;
    e.drift = stage.drift;
    e.acceptance = stage.acceptance;
    e.discretisation = stage.discretisation;
    e.below_baseline = stage.below_baseline;
    e.distance_ratio = stage.distance_ratio;
    e.distance_ratio_error = stage.distance_ratio_error;
    e.gamma_response = stage.gamma_response;
    e.gamma_response_error = stage.gamma_response_error;
    e.distance = stage.mean_distance ? std::optional(std::sqrt(*stage.mean_distance)) : std::nullopt;
    e.relative_distance = e.distance && start_length_ > 0 ? std::optional(*e.distance / start_length_) : std::nullopt;
    e.gamma = stage.gamma;
    e.resolution = stage.gamma / e.n_beta;
    e.step_size = stage.step_size;
    e.relaxation = 2 / (stage.step_size * stage.gamma);
    e.burn_in = stage.burn_in;
    e.draws = stage.draws;
    e.diverged = stage.diverged;
    e.batch_noise.reset();
    if (!objective_.full_batch()) {
      e.batch_noise = stage.step_size * h_max() * e.n_beta / (4 * static_cast<double>(e.batch_size));
    }
    take_losses(stage);
    if (options_.keep_trace()) e.trace = stage.trace;
    if (options_.keep_weights() > 0) take_weights();
  }

  void take_losses(const Stage& stage) {
    auto& e = estimate_;
    const auto n = static_cast<double>(e.samples);
    e.wbic.reset();
    if (e.kind == LlcKind::Plain && e.lambda && std::abs(e.n_beta * std::log(n) / n - 1) < 1e-9) {
      e.wbic = n * e.baseline + std::log(n) * *e.lambda;
    }
    e.functional_variance = stage.functional_variance;
    e.singular_fluctuation.reset();
    if (e.functional_variance) e.singular_fluctuation = e.n_beta / n / 2 * *e.functional_variance;
  }

  void take_weights() {
    std::vector<at::Tensor> all;
    std::size_t least = std::numeric_limits<std::size_t>::max();
    for (const auto& chain : chains_) least = std::min(least, chain.kept_weights().size());
    for (const auto& chain : chains_) {
      const auto& kept = chain.kept_weights();
      const std::vector<at::Tensor> first(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(least));
      if (least > 0) all.push_back(at::stack(first));
    }
    estimate_.weights = all.empty() ? at::Tensor() : at::stack(all);
  }

  void conclude() {
    auto& e = estimate_;
    const bool over = watch_.over();              // what follows is not the chains'
    if (e.gamma == 0) e.gamma = dynamics_.gamma;  // nothing was sampled
    if (over && std::isfinite(e.baseline)) {
      e.descent = std::pow(e.n_beta * objective_.start_gradient().norm().item<double>(), 2) / e.gamma;
    } else if (std::isfinite(e.baseline)) {
      replicas_[0].weights().copy_(objective_.start());
      e.descent = probe_.descent(replicas_[0], objective_.start_gradient(), e.n_beta, e.gamma);
    }
    if (e.lambda && e.standard_error) {
      const auto beyond = [](const std::optional<double>& change, const std::optional<double>& error) {
        return change ? std::max(0.0, *change * *change - *error * *error) : 0.0;
      };
      const double half =
          1.96 * std::sqrt(*e.standard_error * *e.standard_error + std::pow(e.gamma_bias.value_or(0), 2) +
                           beyond(e.step_change, e.step_change_error));
      e.low = *e.lambda - half;
      e.high = *e.lambda + half;
    }
    e.gradients = spent();
    e.seconds = watch_.seconds();
    if (watch_.cancelled()) {
      ending_.stopped = fmt::format("cancelled after {:.3g} s", e.seconds);
    } else if (over) {
      ending_.stopped = fmt::format("stopped after {:.3g} s > {:.3g} s", e.seconds, options_.max_seconds());
    }
    judge(e, options_, ending_);
    watch_.finish();
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
  Dynamics dynamics_;
  bool adapted_ = false;     // MALA's step has been found once
  double scale_max_ = 1;     // largest entry of the preconditioner
  double start_length_ = 0;  // |w*|
  std::int64_t other_gradients_ = 0;
  Stage sample_taken_;
  std::size_t taken_ = 0;  // number of its trial
  Ending ending_;
  LlcEstimate estimate_;
};

}  // namespace

std::string_view to_string(Sampler sampler) {
  switch (sampler) {
    case Sampler::Automatic:
      return "automatic";
    case Sampler::Sgld:
      return "sgld";
    case Sampler::RmspropSgld:
      return "rmsprop_sgld";
    case Sampler::Mala:
      return "mala";
    case Sampler::AveragedNoise:
      return "averaged_noise";
  }
  throw InvalidArgument(fmt::format("Sampler {}; expected a member of the enumeration", static_cast<int>(sampler)));
}

LlcEstimate estimate_llc(const Problem& problem, const LlcOptions& options) {
  const auto begin = [&] {
    check(problem, options);
    return std::make_unique<Estimation>(problem, options);
  };
  const SuspendRecording unseen;
  const RanksPtr& ranks = options.ranks();
  if (!ranks || ranks->size() == 1) return begin()->run();
  if (ranks->rank() == 0) {
    try {
      LlcEstimate estimate = begin()->run();
      dismiss(*ranks, "");
      return estimate;
    } catch (...) {
      dismiss(*ranks, text_of(std::current_exception()));
      throw;
    }
  }
  std::unique_ptr<Estimation> estimation;
  try {
    estimation = begin();
  } catch (...) {
    refuse(*ranks, text_of(std::current_exception()));
    throw;
  }
  estimation->serve();
  LlcEstimate elsewhere;
  elsewhere.kind = options.kind();
  elsewhere.failures.emplace_back("estimated by rank 0");
  return elsewhere;
}

}  // namespace dds
