#include "src/llc/verdict.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>

namespace dds {
namespace {

class Judge {
 public:
  explicit Judge(LlcEstimate& estimate) : estimate_(estimate) {}

  void fail(std::string failure) { estimate_.failures.push_back(std::move(failure)); }

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
  judge.at_most("r_hat", e.r_hat, LlcBounds::kRHat);
  judge.at_least("ess", e.ess, LlcBounds::kEss);
  judge.at_most("|drift|", magnitude(e.drift), LlcBounds::kDrift);
}

void judge_size(Judge& judge, const LlcEstimate& e) {
  const auto share = [&](const std::optional<double>& value) {
    return value ? std::optional(std::abs(*value / *e.lambda)) : std::nullopt;
  };
  if (e.kind == LlcKind::Plain) {
    judge.at_most("w* is no minimum: descent/|lambda|", share(e.descent), LlcBounds::kDescent);
  }
  if (!(*e.lambda > 0)) return judge.fail(fmt::format("lambda {:.3g} is not positive", *e.lambda));
  judge.at_most("standard_error/lambda", share(e.standard_error), LlcBounds::kRelativeError);
  judge.at_most("discretisation/lambda", share(e.discretisation), LlcBounds::kDiscretisation);
}

void judge_neighbourhood(Judge& judge, const LlcEstimate& e, const LlcOptions& options) {
  const bool stationary = e.distance_r_hat && *e.distance_r_hat <= LlcBounds::kDistanceRHat && e.distance_drift &&
                          std::abs(*e.distance_drift) <= LlcBounds::kDrift;
  if (!stationary) {
    judge.fail(
        fmt::format("|w-w*| not stationary (r_hat {:.3g}, bound {:.3g}; drift {:.3g}, bound {:.3g}): "
                    "2/(eps gamma) is {:.0f} steps, burn_in {}",
                    e.distance_r_hat.value_or(NAN), LlcBounds::kDistanceRHat, e.distance_drift.value_or(NAN),
                    LlcBounds::kDrift, e.relaxation, e.burn_in));
  }
  if (e.relative_distance) {
    judge.at_most("chain left the neighbourhood: |w-w*|/|w*|", e.relative_distance, options.max_relative_distance());
  }
  // On mini-batches the loss of a single draw is mostly noise of the batch.
  if (e.batch_size == e.samples && e.kind == LlcKind::Plain) {
    judge.at_most("below_baseline", e.below_baseline, LlcBounds::kBelowBaseline);
  }
}

void judge_step(Judge& judge, const LlcEstimate& e) {
  judge.at_least("acceptance", e.acceptance, LlcBounds::kAcceptance);
  if (e.batch_noise) judge.at_most("batch_noise", e.batch_noise, LlcBounds::kBatchNoise);
}

}  // namespace

void judge(LlcEstimate& estimate, const LlcOptions& options) {
  Judge judge(estimate);
  if (estimate.diverged > 0) judge.fail(fmt::format("{} of {} chains diverged", estimate.diverged, estimate.chains));
  if (options.max_seconds() > 0 && estimate.seconds >= options.max_seconds()) {
    judge.fail(fmt::format("stopped after {:.3g} s > {:.3g} s", estimate.seconds, options.max_seconds()));
  }
  if (!estimate.lambda) {
    if (estimate.failures.empty()) judge.fail("no finite number came of the chains");
    return;
  }
  judge_size(judge, estimate);
  judge_mixing(judge, estimate);
  judge_neighbourhood(judge, estimate, options);
  judge_step(judge, estimate);
}

std::string LlcEstimate::verdict() const {
  if (converged()) return "converged";
  std::string text;
  for (const auto& failure : failures) text += (text.empty() ? "" : "; ") + failure;
  return text;
}

}  // namespace dds
