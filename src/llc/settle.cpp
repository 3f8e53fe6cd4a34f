#include <ATen/TensorOperators.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <torch/optim/adam.h>
#include <torch/optim/lbfgs.h>

#include <algorithm>
#include <cmath>
#include <dds/settle.hpp>
#include <dds/suspend_recording.hpp>
#include <optional>
#include <utility>

#include "src/base/check.hpp"
#include "src/llc/calibration.hpp"
#include "src/llc/gamma_search.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/options.hpp"
#include "src/llc/pass.hpp"
#include "src/llc/replicas.hpp"
#include "src/llc/settling.hpp"
#include "src/llc/streams.hpp"
#include "src/llc/workers.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/random.hpp"

namespace dds {
namespace {

/// Steps of L-BFGS between two looks at what is left.
constexpr std::int64_t kSettlingSteps = 10;
constexpr std::int64_t kPairsKept = 20;  // steps that L-BFGS goes by
/// Parts of a pass over all samples, which threads share: the sum is theirs in this order, however many threads.
constexpr std::int64_t kParts = 16;
/// A ray is followed to lengths of (1 + |w|) 2^k, k from -2: so many of them.
constexpr int kLengths = 12, kFewestLengths = 4;
/// A fall along a ray counts if it is this share of the loss, or if n beta times it is above the target.
constexpr double kFallWithoutEnd = 0.01;

LlcOptions for_replicas(const SettleOptions& options) {
  return LlcOptions().chains(kParts).threads(options.threads()).factory(options.factory()).seed(options.seed());
}

class Settling {
 public:
  Settling(const Problem& problem, const Replica& first, const std::vector<std::string>& names,
           const SettleOptions& options, std::function<bool()> cancelled)
      : problem_(problem),
        options_(options),
        watch_(options.max_seconds(), std::move(cancelled), nullptr),
        replicas_{first},
        weights_(first.weights()),
        objective_(problem.likelihood, problem.data, LlcKind::Plain, options.batch_size(), first),
        probe_(objective_, probe_batch(),
               generator_for(objective_.start().device(), options.seed(), kCurvatureStream)) {
    add_replicas(replicas_, problem, for_replicas(options), names, objective_);
    result_.n_beta = objective_.n_beta(options.n_beta());
    result_.gamma =
        options.gamma() ? *options.gamma() : gamma_rule(result_.n_beta, std::sqrt(probe_.mean_square(replicas_[0])));
    here_ = {objective_.start_loss(), objective_.start_gradient()};
    passes_ = objective_.start_passes();
  }

  Settled run() {
    result_.loss_before = here_.loss;
    result_.gradient_before = length_of(here_.gradient);
    if (!std::isfinite(here_.loss)) {
      result_.failure = fmt::format("the loss at the checkpoint is {}", here_.loss);
    } else if (!is_close() || !has_arrived()) {
      go_by_adam();
      go_by_lbfgs();  // looks at least once
    }
    return conclude();
  }

 private:
  struct Look {
    double loss = 0;
    at::Tensor gradient;
    double descent = 0;
  };

  Batch probe_batch() const {
    const auto size = 4 * options_.batch_size().value_or(0);
    if (objective_.full_batch() || size >= objective_.samples()) return objective_.all();
    return objective_.draw(size, {mixed(options_.seed(), kProbeStream), 0, 0});
  }

  /// The loss and its gradient over all samples.
  Look look() {
    const std::int64_t n = objective_.samples(), piece = objective_.batch_size().value_or(n);
    const std::int64_t pieces = (n + piece - 1) / piece, parts = std::min(pieces, kParts);
    for (std::size_t i = 1; i < replicas_.size(); ++i) replicas_[i].weights().copy_(weights_);
    std::vector<Objective::Sum> sums(static_cast<std::size_t>(parts));
    const auto edge = [&](std::int64_t part) { return std::min(n, pieces * part / parts * piece); };
    run_on(replicas_, sums.size(), watch_, [&](std::size_t i, const Replica& replica) {
      const c10::AutoGradMode with_grad(true);
      const auto part = static_cast<std::int64_t>(i);
      sums[i] = objective_.sum(replica, edge(part), edge(part + 1));
    });
    passes_ += pieces;
    Look all{0, at::zeros_like(weights_)};
    for (const auto& sum : sums) {
      all.loss += sum.loss / static_cast<double>(n);
      all.gradient.add_(sum.gradient, 1 / static_cast<double>(n));
    }
    return all;
  }

  /// Asked before each step.
  bool is_over() { return watch_.tick() || has_spent_all(); }
  bool has_spent_all() const { return options_.max_gradients() && spent() >= *options_.max_gradients(); }
  std::int64_t spent() const { return passes_ + probe_.gradients(); }

  void go_by_adam() {
    if (options_.adam_steps() == 0) return;
    torch::optim::Adam adam({weights_}, torch::optim::AdamOptions(options_.learning_rate()));
    auto& settings = static_cast<torch::optim::AdamOptions&>(adam.param_groups()[0].options());
    for (std::int64_t step = 0; step < options_.adam_steps() && !is_over(); ++step) {
      weights_.mutable_grad() = objective_.full_batch() ? look().gradient : gradient_by_a_batch(step);
      const double left = 1 - static_cast<double>(step) / static_cast<double>(options_.adam_steps());
      settings.lr(options_.learning_rate() * left);
      adam.step();
    }
    weights_.mutable_grad() = at::Tensor();
    take_if_lower(objective_.start(), look());
  }

  /// With control variates, whose anchor is where the last pass over the data ended: the noise gets less as the steps
  /// do (SVRG, Johnson and Zhang 2013).
  at::Tensor gradient_by_a_batch(std::int64_t step) {
    const std::int64_t steps = objective_.start_passes();
    if (step % steps == 0) {
      anchor_.emplace(problem_.likelihood, problem_.data, LlcKind::Plain, options_.batch_size(), replicas_[0],
                      mixed(options_.seed(), static_cast<std::uint64_t>(step)));
      passes_ += anchor_->start_passes();
    }
    passes_ += anchor_->passes();
    const kernels::RandomKey key{mixed(options_.seed(), kNoiseStream), static_cast<std::uint64_t>(step), 0};
    return anchor_->gradient_of(anchor_->at(replicas_[0], anchor_->next(key)));
  }

  /// Stays where it is if the loss there is no higher than here; otherwise goes back to `before`.
  bool take_if_lower(const at::Tensor& before, Look there) {
    if (there.loss <= here_.loss) {
      here_ = std::move(there);
      return true;
    }
    weights_.copy_(before);
    return false;
  }

  void go_by_lbfgs() {
    torch::optim::LBFGS lbfgs({weights_}, torch::optim::LBFGSOptions(1)
                                              .max_iter(kSettlingSteps)
                                              .history_size(kPairsKept)
                                              .tolerance_grad(0)
                                              .tolerance_change(0)
                                              .line_search_fn("strong_wolfe"));
    last_ = objective_.start();
    for (std::int64_t step = 0; !has_arrived() && step < options_.lbfgs_steps() && !is_over(); step += kSettlingSteps) {
      last_ = weights_.clone();
      const double before = length_of(here_.gradient);
      lbfgs.step([&] {
        auto there = look();
        weights_.mutable_grad() = there.gradient;
        return at::scalar_tensor(there.loss, at::kDouble);
      });
      weights_.mutable_grad() = at::Tensor();
      const double loss = here_.loss;
      if (!take_if_lower(last_, look())) break;
      if (here_.loss == loss && !(length_of(here_.gradient) < before)) break;
    }
  }

  /// By the simple bound, which takes no further pass.
  bool is_close() const {
    return std::pow(result_.n_beta * length_of(here_.gradient), 2) / result_.gamma <= options_.target_descent();
  }

  /// Whether no further step is needed, or would help.
  bool has_arrived() {
    if (falls_without_end()) {
      result_.no_minimum = true;
      return true;
    }
    here_.descent = probe_.descent(replicas_[0], here_.gradient, result_.n_beta, result_.gamma);
    if (!best_weights_.defined() || here_.descent < best_.descent) {
      best_ = here_;
      best_weights_ = weights_.clone();
    }
    return here_.descent <= options_.target_descent();
  }

  /// Along the weights themselves, or along the last steps, the loss never rises: that is no minimum ahead.
  bool falls_without_end() {
    const auto here = weights_.clone();
    const double longest = 1 + length_of(here);
    for (const auto& ray : {here, last_.defined() ? here - last_ : here - objective_.start()}) {
      const double length = length_of(ray);
      if (!(length > 0)) continue;
      double last = here_.loss;
      int seen = 0;
      bool falls = true;
      for (int k = 0; k < kLengths && falls; ++k, ++seen) {
        weights_.copy_(here).add_(ray, std::ldexp(longest, k - 2) / length);
        const double next = objective_.start_loss() + objective_.excess(replicas_[0]);
        passes_ += objective_.start_passes();
        if (!std::isfinite(next)) break;
        falls = next <= last;
        last = next;
      }
      weights_.copy_(here);
      const double fall = here_.loss - last;
      const bool counts =
          fall > kFallWithoutEnd * std::abs(here_.loss) || result_.n_beta * fall > options_.target_descent();
      if (falls && seen >= kFewestLengths && counts) return true;
    }
    return false;
  }

  Settled conclude() {
    auto& r = result_;
    if (!r.no_minimum && best_weights_.defined()) {
      here_ = best_;
      weights_.copy_(best_weights_);
    }
    r.weights = weights_.clone();
    r.descent = here_.descent;
    r.loss_after = here_.loss;
    r.gradient_after = length_of(here_.gradient);
    r.distance = length_of(weights_ - objective_.start());
    const double start_length = length_of(objective_.start());
    r.relative_distance = r.distance > 0 ? r.distance / start_length : 0;
    r.gradients = spent();
    r.seconds = watch_.seconds();
    if (!r.failure.empty()) return std::move(r);
    if (r.no_minimum) {
      r.failure = fmt::format(
          "no minimum: the loss falls for ever as the weights grow, from {:.3g} at |w| = {:.3g}: use weight decay, "
          "other data, or LlcKind::Tilted at the checkpoint",
          r.loss_after, length_of(weights_));
      return std::move(r);
    }
    if (r.descent <= options_.target_descent()) return std::move(r);
    const std::string left = fmt::format("descent {:.3g} > {:.3g}", r.descent, options_.target_descent());
    r.failure = watch_.cancelled() ? fmt::format("cancelled after {:.3g} s: {}", r.seconds, left)
                : watch_.over()    ? fmt::format("stopped after {:.3g} s: {}", r.seconds, left)
                : has_spent_all()  ? fmt::format("stopped after {} gradients: {}", r.gradients, left)
                                   : fmt::format("{}: more lbfgs_steps may lower it", left);
    return std::move(r);
  }

  const Problem& problem_;
  const SettleOptions& options_;
  Watch watch_;
  std::vector<Replica> replicas_;    // the first is the caller's model
  at::Tensor weights_;               // of the first
  Objective objective_;              // its w* is the checkpoint
  std::optional<Objective> anchor_;  // of Adam's control variates
  CurvatureProbe probe_;
  Look here_, best_;         // best: of the least descent. On its way down L-BFGS may raise it
  at::Tensor best_weights_;  // undefined before the first look
  at::Tensor last_;          // where the last steps came from
  Settled result_;
  std::int64_t passes_ = 0;
};

}  // namespace

void check(const SettleOptions& o, std::int64_t samples, const char* function) {
  const auto positive = [&](const char* name, const auto& value) {
    if (value) check_positive(function, name, static_cast<double>(*value));
  };
  check_at_least(function, "adam_steps", o.adam_steps(), 0);
  check_at_least(function, "lbfgs_steps", o.lbfgs_steps(), 0);
  check_positive(function, "learning_rate", o.learning_rate());
  check_positive(function, "target_descent", o.target_descent());
  positive("n_beta", o.n_beta());
  positive("gamma", o.gamma());
  positive("max_seconds", o.max_seconds());
  positive("max_gradients", o.max_gradients());
  if (o.threads()) check_at_least(function, "threads", *o.threads(), 1);
  if (o.batch_size()) check_within(function, "batch_size", *o.batch_size(), 1, samples);
  check(samples >= 2 || o.n_beta(), function, "data.size()", samples, "at least 2, or n_beta");
}

SettleOptions settle_options(const LlcOptions& options) {
  SettleOptions own = *options.settle();
  if (options.gamma()) own.gamma(options.gamma());
  if (!own.max_seconds() && options.max_seconds()) own.max_seconds(*options.max_seconds() / 2);
  return own.parameters(options.parameters())
      .batch_size(options.batch_size())
      .n_beta(options.n_beta())
      .fp64(options.fp64())
      .seed(options.seed())
      .threads(options.threads())
      .factory(options.factory());
}

Settled go_down(const Problem& problem, const Replica& first, const std::vector<std::string>& names,
                const SettleOptions& options, std::function<bool()> cancelled) {
  const auto dtype = first.weights().scalar_type();
  check(dtype == at::kFloat || dtype == at::kDouble, "settle", "the weights' dtype", c10::toString(dtype),
        "Float or Double, or SettleOptions::fp64(true)");
  return Settling(problem, first, names, options, std::move(cancelled)).run();
}

Settled settle(const Problem& problem, const SettleOptions& options) {
  constexpr const char* kFunction = "settle";
  const SuspendRecording unseen;
  check_with_targets(problem, kFunction);
  check(options, problem.data.size(), kFunction);
  const auto names = selected_parameters(problem.model, options.parameters(), kFunction);
  Settled settled;
  {
    const SingleThreaded single_threaded;
    const c10::AutoGradMode with_grad(true);
    const ModelGuard guard(
        problem.model, {.dtype = options.fp64() ? std::optional(at::kDouble) : std::nullopt, .require_grad = false});
    const Replica replica(borrowed(problem.model), problem.forward, names);
    const Problem own{problem.model, problem.likelihood, options.fp64() ? in_fp64(problem.data) : problem.data,
                      problem.forward};
    settled = go_down(own, replica, names, options, nullptr);
  }
  if (!options.apply()) return settled;
  const c10::NoGradGuard no_grad;
  std::int64_t offset = 0;
  for (const at::Tensor& parameter : distinct_parameters(problem.model, names)) {
    const auto numbers = as_reals(parameter.detach());
    const auto part = settled.weights.narrow(0, offset, numbers.numel());
    parameter.is_complex() ? at::view_as_real(parameter).copy_(part.view_as(at::view_as_real(parameter)))
                           : parameter.copy_(part.view(parameter.sizes()));
    offset += numbers.numel();
  }
  return settled;
}

}  // namespace dds
