#include "src/llc/result.hpp"

#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace dds {

Result::Result(const LlcOptions& options, const Objective& objective, const Sampling& sampling, std::string replicas,
               std::optional<Settled> settled)
    : options_(options),
      objective_(objective),
      sampling_(sampling),
      start_length_(objective.start().norm().item<double>()) {
  estimate_.kind = options.kind();
  if (settled) {
    settled->weights = at::Tensor();
    estimate_.diagnostics.settled_distance = settled->distance;
  }
  estimate_.settled = std::move(settled);
  estimate_.diagnostics.baseline = objective.start_loss();
  auto& s = estimate_.settings;
  s.samples = objective.samples();
  s.parameters = objective.start().numel();
  s.batch_size = objective.batch_size().value_or(s.samples);
  s.chains = options.chains();
  s.seed = options.seed();
  s.n_beta = sampling.dynamics().n_beta;
  s.sampler = sampling.policy().name;
  s.replicas = std::move(replicas);
}

void Result::note(const Stage& stage, std::string outcome) {
  estimate_.trials.push_back({stage.gamma, stage.step_size, stage.burn_in, stage.draws, stage.lambda,
                              stage.standard_error, std::move(outcome)});
}

void Result::take(const Stage& stage, std::string outcome) {
  note(stage, std::move(outcome));
  taken_ = estimate_.trials.size() - 1;
  stage_ = stage;
  estimate_.lambda = stage.lambda;
  estimate_.standard_error = stage.standard_error;
  take_losses(stage);

  auto& s = estimate_.settings;
  s.gamma = stage.gamma;
  s.resolution = stage.gamma / s.n_beta;
  s.step_size = stage.step_size;
  s.relaxation = 2 / (stage.step_size * stage.gamma);
  s.burn_in = stage.burn_in;
  s.draws = stage.draws;

  auto& d = estimate_.diagnostics;
  d.r_hat = stage.r_hat;
  d.ess = stage.ess;
  d.drift = stage.drift;
  d.acceptance = stage.acceptance;
  d.diverged = stage.diverged;
  d.below_baseline = stage.below_baseline;
  d.distance = stage.mean_distance ? std::optional(std::sqrt(*stage.mean_distance)) : std::nullopt;
  d.relative_distance = d.distance && start_length_ > 0 ? std::optional(*d.distance / start_length_) : std::nullopt;
  d.distance_ratio = stage.distance_ratio;
  d.distance_ratio_error = stage.distance_ratio_error;
  d.discretisation = stage.discretisation;
  d.gamma_response = stage.gamma_response;
  d.gamma_response_error = stage.gamma_response_error;
  d.batch_noise.reset();
  if (stage.batch_heat && stage.lambda) d.batch_noise = *stage.batch_heat / std::abs(*stage.lambda);

  if (options_.keep_trace()) estimate_.trace = stage.trace;
  take_weights();
}

void Result::take_losses(const Stage& stage) {
  auto& e = estimate_;
  const auto n = static_cast<double>(e.settings.samples);
  const double n_beta = e.settings.n_beta;
  e.wbic.reset();
  if (e.kind == LlcKind::Plain && e.lambda && std::abs(n_beta * std::log(n) / n - 1) < 1e-9) {
    e.wbic = n * e.diagnostics.baseline + std::log(n) * *e.lambda;
  }
  e.functional_variance = stage.functional_variance;
  e.singular_fluctuation.reset();
  if (e.functional_variance) e.singular_fluctuation = n_beta / n / 2 * *e.functional_variance;
}

/// Of each chain as many as the one with the fewest has.
void Result::take_weights() {
  std::vector<at::Tensor> all;
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (const auto& chain : sampling_.chains()) least = std::min(least, chain.kept_weights().size());
  for (const auto& chain : sampling_.chains()) {
    const auto& kept = chain.kept_weights();
    const std::vector<at::Tensor> first(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(least));
    if (least > 0) all.push_back(at::stack(first));
  }
  weights_ = all.empty() ? at::Tensor() : at::stack(all);
  if (options_.keep_weights() > 0) estimate_.weights = weights_;
}

/// At what the chains cannot tell of themselves.
void Result::look_beside(Sampling& sampling) {
  auto& d = estimate_.diagnostics;
  const auto saddle = sampling.saddle(estimate_.settings.gamma, d.descent.value_or(0));
  d.negative_curvature = saddle.curvature;
  d.saddle = saddle.taken_off;
  if (!stage_.lambda) return;
  d.rounding = sampling.rounding();
  const double reach = start_length_ > 0 ? options_.max_relative_distance() * start_length_ : INFINITY;
  const auto draws = weights_.defined() ? weights_.flatten(0, 1) : at::Tensor();
  if (const auto elsewhere = sampling.elsewhere(stage_, draws, reach)) d.elsewhere = elsewhere->gain;
}

void Result::set_gamma_move(const std::optional<Change>& move, double bias) {
  auto& d = estimate_.diagnostics;
  d.gamma_change = move ? std::optional(move->value) : std::nullopt;
  d.gamma_change_error = move ? std::optional(move->error) : std::nullopt;
  d.gamma_bias = bias;
}

void Result::compare_with_half_step(const Stage& half) {
  note(half, "half the step");
  const auto moved = change(stage_, half);
  if (!moved) return;
  auto& d = estimate_.diagnostics;
  d.step_change = moved->value;
  d.step_change_error = moved->error;
  const bool first_order = sampling_.policy().keeps_batch_bias && !objective_.full_batch();
  d.richardson = *stage_.lambda + (first_order ? 2.0 : 4.0 / 3) * moved->value;
}

void Result::set_interval() {
  auto& e = estimate_;
  const auto& d = e.diagnostics;
  if (!e.lambda || !e.standard_error) return;
  const double beyond_noise =
      d.step_change ? std::max(0.0, *d.step_change * *d.step_change - *d.step_change_error * *d.step_change_error)
                    : 0.0;
  double square = beyond_noise;
  // The plain estimate runs downhill, by half to all of this.
  if (e.kind == LlcKind::Plain) square += std::pow(d.descent.value_or(0) / 2, 2);
  for (const auto& part : {e.standard_error, d.gamma_bias, d.saddle, d.rounding, d.elsewhere}) {
    square += std::pow(part.value_or(0), 2);
  }
  const double half = 1.96 * std::sqrt(square);
  e.low = *e.lambda - half;
  e.high = *e.lambda + half;
}

LlcEstimate Result::conclude(Sampling& sampling, Watch& watch, Ending ending) {
  auto& e = estimate_;
  const bool ended = watch.over();
  watch.release();
  if (e.settings.gamma == 0) e.settings.gamma = sampling.dynamics().gamma;  // nothing was sampled
  const bool has_start = std::isfinite(e.diagnostics.baseline) && !(e.settled && e.settled->no_minimum);
  if (has_start) e.diagnostics.descent = sampling.descent(e.settings.gamma, watch.over());
  if (has_start && !watch.over()) look_beside(sampling);
  e.diagnostics.mu_max = sampling.step_rule().mu_max();
  set_interval();
  e.gradients = sampling.passes_spent();
  e.seconds = watch.seconds();
  if (watch.cancelled()) {
    ending.stopped = fmt::format("cancelled after {:.3g} s", e.seconds);
  } else if (ended || sampling.cut_short() || watch.over()) {
    ending.stopped =
        fmt::format("stopped after {:.3g} s, of {:.3g} s given", e.seconds, options_.max_seconds().value_or(0));
  }
  ending.halves_step = sampling.halves_step();
  judge(e, options_, ending);
  return std::move(e);
}

}  // namespace dds
