#include "src/llc/verdict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/llc/stage.hpp"

namespace dds {
namespace {

class Judge {
 public:
  explicit Judge(LlcEstimate& estimate) : estimate_(estimate) {}

  void fail(std::string_view failure) { estimate_.failures.emplace_back(failure); }

  /// A number that is missing or not finite fails too: what cannot be judged is not believed.
  void at_most(const char* name, const std::optional<double>& value, double bound) {
    if (!value || !std::isfinite(*value)) return fail(fmt::format("{} not available", name));
    if (*value > bound) fail(fmt::format("{} {:.3g} > {:.3g}", name, *value, bound));
  }

  void at_least(const char* name, const std::optional<double>& value, double bound) {
    if (!value || !std::isfinite(*value)) return fail(fmt::format("{} not available", name));
    if (*value < bound) fail(fmt::format("{} {:.3g} < {:.3g}", name, *value, bound));
  }

 private:
  LlcEstimate& estimate_;
};

std::optional<double> magnitude(const std::optional<double>& value) {
  return value ? std::optional(std::abs(*value)) : std::nullopt;
}

/// Of lambda.
std::optional<double> share(const LlcEstimate& e, const std::optional<double>& value) {
  return value ? std::optional(std::abs(*value / *e.lambda)) : std::nullopt;
}

/// w* itself, which no chain can mend.
void judge_point(Judge& judge, const LlcEstimate& e) {
  const auto& d = e.diagnostics;
  const double size = std::abs(*e.lambda);
  if (e.kind == LlcKind::Plain && !(d.descent && *d.descent <= LlcBounds::kDescent * size)) {
    judge.fail(d.descent ? fmt::format("w* is no minimum: descent/|lambda| {:.3g} > {:.3g}: {}", *d.descent / size,
                                       LlcBounds::kDescent,
                                       e.settled ? "settle further, by SettleOptions::lbfgs_steps"
                                                 : "settle first, by LlcOptions::settle, or take LlcKind::Tilted")
                         : "w* is no minimum: descent/|lambda| not available");
  }
  if (d.saddle && !(*d.saddle <= LlcBounds::kSaddle * size)) {
    judge.fail(
        fmt::format("saddle: points near w* are lower, which takes {:.3g} off lambda {:.3g}, the most negative "
                    "curvature at w* being {:.3g}: train or settle further, or take a larger gamma",
                    *d.saddle, *e.lambda, *d.negative_curvature));
  }
}

/// What the chains cannot tell of themselves.
void judge_surroundings(Judge& judge, const LlcEstimate& e) {
  const auto& d = e.diagnostics;
  const auto exceeds = [&](const std::optional<double>& part, double bound) {
    return part && !(*part <= bound * std::abs(*e.lambda));
  };
  if (exceeds(d.rounding, LlcBounds::kRounding)) {
    judge.fail(fmt::format("rounding: the loss in fp32 is {:.3g} off, of lambda {:.3g}: sample with LlcOptions::fp64",
                           *d.rounding, *e.lambda));
  }
  if (exceeds(d.elsewhere, LlcBounds::kElsewhere)) {
    judge.fail(
        fmt::format("metastable: regions where no chain was would add {:.3g} to lambda {:.3g}: a larger gamma "
                    "shuts them off",
                    *d.elsewhere, *e.lambda));
  }
  if (!(*e.lambda > 0)) judge.fail(fmt::format("lambda {:.3g} is not positive", *e.lambda));
}

/// How much longer the chains would have to be, by what is furthest from its bound. 1: long enough.
double lengthening(const LlcEstimate& e) {
  const auto& d = e.diagnostics;
  double factor = 1;
  const auto needs = [&](double times) { factor = std::max(factor, times); };
  if (e.standard_error) needs(std::pow(*e.standard_error / (LlcBounds::kRelativeError * std::abs(*e.lambda)), 2));
  if (d.ess) needs(LlcBounds::kEss / *d.ess);
  // A mean that is off by the distance between chains, or by a drift, falls like 1 / length.
  if (d.r_hat && *d.r_hat > LlcBounds::kRHat) needs(std::min(16.0, (*d.r_hat - 1) / (LlcBounds::kRHat - 1)) * 2);
  if (d.drift && std::abs(*d.drift) > LlcBounds::kDrift) needs(2);
  if (!distance_is_stationary(d.distance_ratio, d.distance_ratio_error)) {
    const double length = static_cast<double>(e.settings.burn_in + e.settings.draws);
    needs(std::max(2.0, 2 * e.settings.relaxation / length));
  }
  return factor;
}

/// What makes the chains so much longer.
std::string to_lengthen(const LlcEstimate& e, const LlcOptions& options) {
  const double factor = 1.2 * lengthening(e);
  const auto times = [&](std::int64_t steps) { return factor * static_cast<double>(steps); };
  std::string text = fmt::format("needs about {:.2g} x the steps and the time: ", factor);
  if (options.draws()) {
    text += fmt::format("draws({:.2g})", times(e.settings.draws));
    if (options.burn_in())
      text += fmt::format(" and burn_in({:.2g})", times(std::max<std::int64_t>(e.settings.burn_in, 100)));
  } else {
    text += fmt::format("max_gradients({:.2g})", times(std::max(e.gradients, options.max_gradients().value_or(0))));
  }
  return text;
}

void judge_mixing(Judge& judge, const LlcEstimate& e) {
  judge.at_most("r_hat", e.diagnostics.r_hat, LlcBounds::kRHat);
  judge.at_least("ess", e.diagnostics.ess, LlcBounds::kEss);
  judge.at_most("|drift|", magnitude(e.diagnostics.drift), LlcBounds::kDrift);
  if (*e.lambda > 0) judge.at_most("standard_error/lambda", share(e, e.standard_error), LlcBounds::kRelativeError);
}

/// `settled`: lambda is the same at four times gamma. Chains may then go any distance, and need not yet have come all
/// the way to it.
void judge_neighbourhood(Judge& judge, const LlcEstimate& e, const LlcOptions& options, bool settled) {
  const bool on_the_way =
      settled && e.diagnostics.distance_ratio && *e.diagnostics.distance_ratio > LlcBounds::kDistanceOnTheWay;
  if (!on_the_way && !distance_is_stationary(e.diagnostics.distance_ratio, e.diagnostics.distance_ratio_error)) {
    judge.fail(
        fmt::format("|w-w*| not stationary: |w-w*|^2 at {:.2g} of what it must be, 2/(eps gamma) being {:.0f} steps, "
                    "burn_in {}, draws {}",
                    *e.diagnostics.distance_ratio, e.settings.relaxation, e.settings.burn_in, e.settings.draws));
  }
  if (e.diagnostics.relative_distance && !settled) {
    judge.at_most("chain left the neighbourhood: |w-w*|/|w*|", e.diagnostics.relative_distance,
                  options.max_relative_distance());
  }
  // On mini-batches the loss of a single draw is mostly noise of the batch.
  if (e.settings.batch_size == e.settings.samples && e.kind == LlcKind::Plain) {
    judge.at_most("below_baseline", e.diagnostics.below_baseline, LlcBounds::kBelowBaseline);
  }
}

void judge_gamma(Judge& judge, const LlcEstimate& e, const Ending& ending) {
  if (!ending.gamma_limited.empty()) return judge.fail(ending.gamma_limited);
  if (e.diagnostics.gamma_change || !e.diagnostics.gamma_response || !e.diagnostics.gamma_response_error) return;
  // A given gamma: lambda_hat(gamma) is what was asked for. It fails where it measures gamma more than the loss. On
  // mini-batches the response is mostly noise, whose error a few chains tell badly.
  const double surely = *e.diagnostics.gamma_response - 3 * *e.diagnostics.gamma_response_error;
  if (surely > LlcBounds::kGammaResponse * *e.lambda) {
    judge.fail(fmt::format("gamma_limited: halving gamma would add {:.3g} +- {:.2g} to lambda {:.3g}",
                           *e.diagnostics.gamma_response, *e.diagnostics.gamma_response_error, *e.lambda));
  }
}

void judge_step(Judge& judge, const LlcEstimate& e) {
  judge.at_most("discretisation/lambda", share(e, e.diagnostics.discretisation), LlcBounds::kDiscretisation);
  if (e.diagnostics.acceptance) judge.at_least("acceptance", e.diagnostics.acceptance, LlcBounds::kAcceptance);
  if (e.diagnostics.batch_noise) judge.at_most("batch_noise", e.diagnostics.batch_noise, LlcBounds::kBatchNoise);
}

void judge_half_step(Judge& judge, const LlcEstimate& e) {
  if (!e.diagnostics.step_change) return judge.fail("half the step not available");
  if (*e.diagnostics.step_change_error > 2 * LlcBounds::kRelativeError * std::abs(*e.lambda)) {
    judge.fail(fmt::format("half the step: error {:.2g} is too large to judge by", *e.diagnostics.step_change_error));
  }
  const double moved = std::abs(*e.diagnostics.step_change);
  if (moved > 3 * *e.diagnostics.step_change_error && moved > LlcBounds::kStepChange * *e.lambda) {
    judge.fail(fmt::format("half the step changes lambda by {:.3g} +- {:.2g}", *e.diagnostics.step_change,
                           *e.diagnostics.step_change_error));
  }
}

}  // namespace

void judge(LlcEstimate& estimate, const LlcOptions& options, const Ending& ending) {
  Judge judge(estimate);
  if (!std::isfinite(estimate.diagnostics.baseline))
    return judge.fail(fmt::format("the loss at w* is {}", estimate.diagnostics.baseline));
  if (estimate.diagnostics.diverged > 0)
    judge.fail(fmt::format("{} of {} chains diverged", estimate.diagnostics.diverged, estimate.settings.chains));
  if (!estimate.lambda) {
    if (!ending.stopped.empty()) judge.fail(ending.stopped);
    if (estimate.failures.empty()) judge.fail("no finite number came of the chains");
    return;
  }
  // In the order of causes: what is wrong with w* or with the step shows in all that follows.
  judge_point(judge, estimate);
  if (!ending.stopped.empty()) judge.fail(ending.stopped);
  judge_step(judge, estimate);
  judge_surroundings(judge, estimate);
  const std::size_t before = estimate.failures.size();
  judge_mixing(judge, estimate);
  judge_neighbourhood(judge, estimate, options, ending.gamma_settled);
  if (estimate.failures.size() > before && lengthening(estimate) > 1) {
    estimate.failures[before] += ": " + to_lengthen(estimate, options);
  }
  judge_gamma(judge, estimate, ending);
  if (ending.halves_step) judge_half_step(judge, estimate);
}

std::string LlcEstimate::verdict() const {
  if (converged()) return "converged";
  if (failures.size() == 1) return failures[0];
  return fmt::format("{} (and {} more)", failures[0], failures.size() - 1);
}

}  // namespace dds
