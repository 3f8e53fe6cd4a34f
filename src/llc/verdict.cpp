#include "src/llc/verdict.hpp"

#include <fmt/format.h>

#include <cmath>
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

void judge_mixing(Judge& judge, const LlcEstimate& e) {
  judge.at_most("r_hat", e.diagnostics.r_hat, LlcBounds::kRHat);
  judge.at_least("ess", e.diagnostics.ess, LlcBounds::kEss);
  judge.at_most("|drift|", magnitude(e.diagnostics.drift), LlcBounds::kDrift);
}

/// What the chains cannot tell of themselves.
void judge_surroundings(Judge& judge, const LlcEstimate& e) {
  const auto& d = e.diagnostics;
  const auto exceeds = [&](const std::optional<double>& part, double bound) {
    return part && !(*part <= bound * std::abs(*e.lambda));
  };
  if (exceeds(d.saddle, LlcBounds::kSaddle)) {
    judge.fail(
        fmt::format("saddle: points near w* are lower, which takes {:.3g} off lambda {:.3g}; the most negative "
                    "curvature at w* is {:.3g}",
                    *d.saddle, *e.lambda, *d.negative_curvature));
  }
  if (exceeds(d.elsewhere, LlcBounds::kElsewhere)) {
    judge.fail(
        fmt::format("metastable: regions where no chain was would add {:.3g} to lambda {:.3g}; a larger gamma "
                    "shuts them off",
                    *d.elsewhere, *e.lambda));
  }
  if (exceeds(d.rounding, LlcBounds::kRounding)) {
    judge.fail(fmt::format("rounding: the loss in fp32 is {:.3g} off, of lambda {:.3g}; sample with LlcOptions::fp64",
                           *d.rounding, *e.lambda));
  }
}

void judge_size(Judge& judge, const LlcEstimate& e) {
  const auto share = [&](const std::optional<double>& value) {
    return value ? std::optional(std::abs(*value / *e.lambda)) : std::nullopt;
  };
  if (e.kind == LlcKind::Plain) {
    judge.at_most("w* is no minimum: descent/|lambda|", share(e.diagnostics.descent), LlcBounds::kDescent);
  }
  if (!(*e.lambda > 0)) return judge.fail(fmt::format("lambda {:.3g} is not positive", *e.lambda));
  judge.at_most("standard_error/lambda", share(e.standard_error), LlcBounds::kRelativeError);
  judge.at_most("discretisation/lambda", share(e.diagnostics.discretisation), LlcBounds::kDiscretisation);
}

/// `settled`: lambda is the same at four times gamma. Chains may then go any distance, and need not yet have come all
/// the way to it.
void judge_neighbourhood(Judge& judge, const LlcEstimate& e, const LlcOptions& options, bool settled) {
  const bool on_the_way =
      settled && e.diagnostics.distance_ratio && *e.diagnostics.distance_ratio > LlcBounds::kDistanceOnTheWay;
  if (!on_the_way && !distance_is_stationary(e.diagnostics.distance_ratio, e.diagnostics.distance_ratio_error)) {
    judge.fail(
        fmt::format("|w-w*| not stationary: |w-w*|^2 at {:.2g} of what it must be; 2/(eps gamma) is {:.0f} steps, "
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
  // A given gamma: lambda_hat(gamma) is what was asked for. It fails where it measures gamma more than the loss.
  const double surely = *e.diagnostics.gamma_response - 2 * *e.diagnostics.gamma_response_error;
  if (surely > LlcBounds::kGammaResponse * *e.lambda) {
    judge.fail(fmt::format("gamma_limited: halving gamma would add {:.3g} +- {:.2g} to lambda {:.3g}",
                           *e.diagnostics.gamma_response, *e.diagnostics.gamma_response_error, *e.lambda));
  }
}

void judge_step(Judge& judge, const LlcEstimate& e, bool halves_step) {
  if (e.diagnostics.acceptance) judge.at_least("acceptance", e.diagnostics.acceptance, LlcBounds::kAcceptance);
  if (e.diagnostics.batch_noise) judge.at_most("batch_noise", e.diagnostics.batch_noise, LlcBounds::kBatchNoise);
  if (!halves_step) return;
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
  if (!ending.stopped.empty()) judge.fail(ending.stopped);
  if (!estimate.lambda) {
    if (estimate.failures.empty()) judge.fail("no finite number came of the chains");
    return;
  }
  judge_surroundings(judge, estimate);
  judge_size(judge, estimate);
  judge_mixing(judge, estimate);
  judge_neighbourhood(judge, estimate, options, ending.gamma_settled);
  judge_step(judge, estimate, ending.halves_step);
  judge_gamma(judge, estimate, ending);
}

std::string LlcEstimate::verdict() const {
  if (converged()) return "converged";
  std::string text;
  for (const auto& failure : failures) text += (text.empty() ? "" : "; ") + failure;
  return text;
}

}  // namespace dds
