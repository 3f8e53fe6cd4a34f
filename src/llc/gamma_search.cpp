#include "src/llc/gamma_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace dds {
namespace {

constexpr double kLowest = 1.0 / 256;      // in units of the rule's gamma
constexpr double kApproachError = 0.03;    // relative error of lambda above the rule's gamma
constexpr double kShrinkage = 0.75;        // a move of more than this share of the last one does not get smaller
constexpr double kSeen = 2.5;              // errors beyond which a move or a response counts as one
constexpr double kLoudestNoise = 0.06;     // largest share of lambda that these errors may be
constexpr std::int64_t kLeastSteps = 500;  // per chain, for another gamma
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The slope of lambda over -log gamma, from the draws at one gamma, and its error. None from chains that have not come
/// as far from w* as they must: they have not seen what gamma holds.
std::optional<Change> slope_of(const Stage& stage) {
  if (!stage.gamma_response || !stage.gamma_response_error) return std::nullopt;
  if (!distance_is_stationary(stage.distance_ratio, stage.distance_ratio_error)) return std::nullopt;
  return Change{*stage.gamma_response / std::log(2.0), *stage.gamma_response_error / std::log(2.0)};
}

/// Of a bias like gamma^p, slope / p is left to come. p is 1 in directions that the loss holds, and at least about 1/2
/// elsewhere unless m > 1. Then the slope hardly falls from one gamma to the next, and p is what its fall says.
GammaSearch::Remaining by_slope(const Change& slope, const std::optional<Change>& last) {
  const double size = std::abs(slope.value);
  const bool seen = size > kSeen * slope.error;
  const double fall = seen && last ? std::clamp(size / std::abs(last->value), 0.5, 0.9) : 0.5;
  const double rest = std::log(4.0) / -std::log(fall);
  return {rest * (size + slope.error), seen ? rest * size : 0};
}

}  // namespace

double gamma_rule(double n_beta, double typical_curvature) {
  const double curvature = typical_curvature > 0 && std::isfinite(typical_curvature) ? typical_curvature : 1;
  return 0.03 * std::min(n_beta, std::sqrt(n_beta)) * curvature;
}

bool depends_little_on_gamma(const Stage& stage) {
  const auto slope = slope_of(stage);
  return slope && stage.lambda && by_slope(*slope, {}).is_small(*stage.lambda);
}

GammaSearch::GammaSearch(const LlcOptions& options, const Scale& scale)
    : scale_(scale),
      rule_(gamma_rule(scale.n_beta, scale.typical_curvature)),
      max_distance_(options.max_relative_distance() * scale.start_length),
      target_error_(options.target_error()),
      smallest_error_(kInfinity) {}

double GammaSearch::first() const {
  const double length = scale_.start_length;
  const double near = length > 0 ? static_cast<double>(scale_.parameters) / (length * length) : 0;
  const double stiff = scale_.n_beta * scale_.largest_curvature;
  double gamma = kFactor * rule_;
  while (gamma < std::min(near, stiff)) gamma *= kFactor;
  return gamma;
}

double GammaSearch::target(double gamma) const { return gamma > 2 * rule_ ? kApproachError : target_error_; }

bool GammaSearch::settles(const Stage& stage) const {
  if (!stage.lambda || !stage.standard_error || stage.gamma >= 2 * rule_) return false;
  return remaining(stage).is_small(*stage.lambda);
}

GammaSearch::Decision GammaSearch::decide(const Stage& stage, bool run_ended, std::optional<std::int64_t> affordable) {
  if (last_ && run_ended && stage.diverged == 0 && stage.draws < last_->draws) {
    return {.take = false, .outcome = "left: the run ended"};
  }
  if (!stage.lambda || !stage.standard_error) return {.take = !last_, .outcome = "no finite number"};
  Decision decision;
  decision.outcome = "taken";
  if (last_) decision.move = change(*last_, stage);
  const Remaining left = remaining(stage);
  decision.bias = left.beyond_noise;
  settled_ = settles(stage);
  if (settled_) return decision;
  const bool hopeless = last_ && (is_lasting(*decision.move) || stage.gamma < 2 * rule_ * kLowest);
  decision.lower = !hopeless && !(affordable && *affordable < kLeastSteps);
  const double error = std::hypot(*stage.standard_error, left.at_most);
  // Far from w* it is another landscape.
  const bool far = is_far(stage);
  decision.take = error <= smallest_error_ && (!far || taken_far_ || !last_);
  if (decision.take) {
    smallest_error_ = error;
    taken_far_ = far;
    taken_ = fmt::format("lambda {:.4g} at gamma {:.3g}", *stage.lambda, stage.gamma);
    taken_bias_ = decision.bias;
  }
  if (!decision.lower) limited_ = what_limits();
  if (!decision.take) {
    decision.outcome = far && !taken_far_ ? "left: it is further from w* than w* is long"
                                          : "left: its error is larger than at the gamma that is taken";
  } else if (decision.lower) {
    decision.outcome = decision.move ? fmt::format("lambda moved by {:.2g} +- {:.2g}: gamma is lowered",
                                                   decision.move->value, decision.move->error)
                                     : "gamma is lowered";
  }
  last_ = stage;
  last_move_ = decision.move;
  return decision;
}

std::string GammaSearch::what_limits() const {
  if (taken_bias_ > 0) {
    return fmt::format("gamma_limited: {}, and smaller ones would change it by about {:.2g}", taken_, taken_bias_);
  }
  return fmt::format("gamma_unsettled: {}, and the draws are too few to tell what smaller ones would change", taken_);
}

/// By the slope, where it is seen above a noise that is less than the move's, or where it shows by itself that little
/// is left; otherwise by the move.
GammaSearch::Remaining GammaSearch::remaining(const Stage& stage) const {
  const auto slope = slope_of(stage);
  const auto move = last_ ? change(*last_, stage) : std::nullopt;
  if (slope) {
    const Remaining left = by_slope(*slope, last_ ? slope_of(*last_) : std::nullopt);
    const bool decides = left.beyond_noise > 0 && move && 2 * slope->error <= move->error;
    if (!move || decides || left.is_small(*stage.lambda)) return left;
  }
  if (!move || kSeen * move->error > kLoudestNoise * std::abs(*stage.lambda)) return {kInfinity, 0};
  return by_move(*move, stage.gamma);
}

/// The rest of a geometric series of moves, since a bias like gamma^p falls by the same factor each time. `at_most`
/// adds the noise of the move; at the rule's gamma, where there is mostly no bias, a move within its noise counts as
/// none.
GammaSearch::Remaining GammaSearch::by_move(const Change& move, double gamma) const {
  const bool at_rule = gamma > rule_ / 2 && gamma < rule_ * 2;
  const double size = std::abs(move.value);
  const double shown = !at_rule ? size + move.error : size > kSeen * move.error ? size : 0;
  // p between 1, also where nothing is seen, and 1/2, also where there is no move before.
  const double factor =
      shown == 0 ? 0.25 : std::clamp(last_move_ ? shown / std::abs(last_move_->value) : 0.5, 0.25, 0.5);
  const double rest = factor / (1 - factor);
  return {shown * rest, std::sqrt(std::max(0.0, size * size - move.error * move.error)) * rest};
}

/// A move below the rule's gamma that is surely no smaller than the last one. Both have their noise. At gammas far
/// above the curvature every move is large.
bool GammaSearch::is_lasting(const Change& move) const {
  if (!last_move_ || last_->gamma >= 2 * rule_) return false;
  return std::abs(move.value) - 2 * move.error > kShrinkage * (std::abs(last_move_->value) + last_move_->error);
}

bool GammaSearch::is_far(const Stage& stage) const {
  return scale_.start_length > 0 && std::sqrt(*stage.mean_distance) > max_distance_;
}

}  // namespace dds
