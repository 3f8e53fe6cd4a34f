#include "src/llc/stage.hpp"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace dds {
namespace {

using diagnostics::Traces;

// At which chains are long enough: tighter than the verdict's bounds, so that these are met with room.
constexpr double kSettledRHat = 1.02;
constexpr double kSettledDrift = 3;

/// One number of the draws of each chain, the first `draws` of them.
template <class Value>
Traces collect(const std::vector<Chain>& chains, std::int64_t draws, const Value& value) {
  Traces traces;
  for (const auto& chain : chains) {
    auto& values = traces.emplace_back();
    values.reserve(static_cast<std::size_t>(draws));
    for (std::size_t t = 0; t < static_cast<std::size_t>(draws); ++t) values.push_back(value(chain.trace(), t));
  }
  return traces;
}

void judge_distance(Stage& stage, const std::vector<Chain>& chains, double gamma, std::int64_t parameters) {
  // E[gamma |w - w*|^2 + (w - w*) . grad F] = d in the stationary state.
  const auto d = static_cast<double>(parameters);
  const auto along = collect(chains, stage.draws, [](const Chain::Trace& t, std::size_t i) { return t.along[i]; });
  const auto both = collect(chains, stage.draws,
                            [&](const Chain::Trace& t, std::size_t i) { return gamma * t.distance[i] + t.along[i]; });
  const double held = d - diagnostics::mean(along);
  const auto precision = diagnostics::precision(both);
  if (!precision || !(held > precision->standard_error)) return;
  stage.distance_ratio = gamma * *stage.mean_distance / held;
  stage.distance_ratio_error = precision->standard_error / held;
}

void respond(Stage& stage, const std::vector<Chain>& chains, double gamma) {
  // d lambda / d gamma = -1/2 Cov(F, |w - w*|^2).
  const double mean_distance = *stage.mean_distance, lambda = *stage.lambda;
  const auto covariance = collect(chains, stage.draws, [&](const Chain::Trace& t, std::size_t i) {
    return (t.excess[i] - t.bias[i] - lambda) * (t.distance[i] - mean_distance);
  });
  const double scale = std::log(2.0) * gamma / 2;
  stage.gamma_response = scale * diagnostics::mean(covariance);
  if (const auto precision = diagnostics::precision(covariance))
    stage.gamma_response_error = scale * precision->standard_error;
}

void sum_losses(Stage& stage, const std::vector<Chain>& chains) {
  Chain::Losses all;
  for (const auto& chain : chains) {
    const auto& losses = chain.losses();
    if (losses.count == 0) return;
    all.sum = all.count == 0 ? losses.sum.clone() : all.sum.add_(losses.sum);
    all.squares = all.count == 0 ? losses.squares.clone() : all.squares.add_(losses.squares);
    all.count += losses.count;
  }
  if (all.count < 2) return;
  const auto n = static_cast<double>(all.count);
  const auto variance = (all.squares - all.sum * all.sum / n) / (n - 1);
  stage.functional_variance = variance.sum().item<double>();
}

}  // namespace

bool distance_is_stationary(const std::optional<double>& ratio, const std::optional<double>& error) {
  if (!ratio || !error) return true;
  const double off = std::abs(*ratio - 1);
  return off <= LlcBounds::kDistanceRatio || off <= 3 * *error;
}

bool Stage::settled(double target, bool whole_distance) const {
  return lambda && standard_error && *standard_error <= target * std::abs(*lambda) && r_hat && *r_hat <= kSettledRHat &&
         drift && std::abs(*drift) <= kSettledDrift &&
         (!whole_distance || distance_is_stationary(distance_ratio, distance_ratio_error));
}

Stage summarise(const std::vector<Chain>& chains, const Dynamics& dynamics, std::int64_t parameters,
                bool known_identity) {
  Stage stage;
  stage.gamma = dynamics.gamma;
  stage.step_size = dynamics.eps;
  double accepted = 0;
  std::int64_t proposals = 0;
  stage.draws = static_cast<std::int64_t>(chains[0].trace().excess.size());
  for (const auto& chain : chains) {
    stage.diverged += chain.diverged();
    stage.draws = std::min(stage.draws, static_cast<std::int64_t>(chain.trace().excess.size()));
    accepted += chain.accepted();
    proposals += chain.proposals();
  }
  if (proposals > 0) stage.acceptance = accepted / static_cast<double>(proposals);
  if (stage.diverged > 0 || stage.draws == 0) return stage;

  stage.trace =
      collect(chains, stage.draws, [](const Chain::Trace& t, std::size_t i) { return t.excess[i] - t.bias[i]; });
  const double lambda = diagnostics::mean(stage.trace);
  if (!std::isfinite(lambda)) return stage;
  stage.lambda = lambda;
  if (const auto precision = diagnostics::precision(stage.trace)) {
    stage.standard_error = precision->standard_error;
    stage.ess = precision->ess;
  }
  stage.r_hat = diagnostics::rank_r_hat(stage.trace);
  stage.drift = diagnostics::drift(stage.trace);
  const auto mean_of = [&](const auto& value) { return diagnostics::mean(collect(chains, stage.draws, value)); };
  stage.discretisation = mean_of([](const Chain::Trace& t, std::size_t i) { return t.bias[i]; });
  stage.below_baseline = mean_of([](const Chain::Trace& t, std::size_t i) { return t.excess[i] < 0 ? 1.0 : 0.0; });
  stage.mean_distance = mean_of([](const Chain::Trace& t, std::size_t i) { return t.distance[i]; });
  if (dynamics.box == 0 && known_identity) judge_distance(stage, chains, dynamics.gamma, parameters);
  respond(stage, chains, dynamics.gamma);
  sum_losses(stage, chains);
  return stage;
}

std::optional<Change> change(const Stage& from, const Stage& to) {
  if (!from.lambda || !to.lambda || !from.standard_error || !to.standard_error) return std::nullopt;
  return Change{*to.lambda - *from.lambda, std::hypot(*from.standard_error, *to.standard_error)};
}

}  // namespace dds
