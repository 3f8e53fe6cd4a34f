#include "src/llc/gamma_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace dds {
namespace {

constexpr double kFactor = 4;              // from one gamma to the next
constexpr double kLowest = 1.0 / 64;       // in units of the rule's gamma
constexpr double kApproachError = 0.03;    // relative error of lambda far above the rule's gamma
constexpr double kShrinkage = 0.75;        // a move of more than this share of the last one does not get smaller
constexpr double kSeenMove = 2.5;          // errors beyond which a move at the rule's gamma counts as one
constexpr double kLoudestNoise = 0.06;     // largest share of lambda that these errors may be
constexpr std::int64_t kLeastSteps = 500;  // per chain, for another gamma

}  // namespace

GammaSearch::GammaSearch(const LlcOptions& options, double n_beta, std::int64_t parameters, double start_length)
    : n_beta_(n_beta),
      parameters_(parameters),
      start_length_(start_length),
      max_distance_(options.max_relative_distance() * start_length),
      target_error_(options.target_error()) {}

/// Right for tens of weights of order 1 (src/docs/the_method.md); the middle of the search elsewhere.
double GammaSearch::rule() const { return 0.03 * std::sqrt(n_beta_); }

double GammaSearch::first() const {
  const double near = start_length_ > 0 ? static_cast<double>(parameters_) / std::pow(start_length_, 2) : 0;
  double gamma = kFactor * rule();
  while (gamma < near && std::isfinite(near)) gamma *= kFactor;
  return gamma;
}

double GammaSearch::next() const { return last_.gamma / kFactor; }

double GammaSearch::target(double gamma) const { return gamma > 5 * rule() ? kApproachError : target_error_; }

GammaSearch::Decision GammaSearch::decide(const Stage& stage, bool run_ended, std::optional<std::int64_t> affordable) {
  if (run_ended && stage.diverged == 0 && stage.draws < last_.draws) {
    return {.take = false, .outcome = "left: the run ended"};
  }
  Decision decision;
  decision.move = change(last_, stage);
  if (!decision.move) return {.finite = false, .outcome = "no finite number"};
  const Change& move = *decision.move;
  const Remaining left = remaining(move, stage.gamma);
  decision.bias = left.beyond_noise;
  decision.outcome = "taken";
  if (settles(stage, move, left)) {
    settled_ = true;
    return decision;
  }
  if (is_hopeless(stage, move, affordable)) {
    limited_ = fmt::format("lambda {:.4g} at gamma {:.3g}, {:.4g} at {:.3g}", *last_.lambda, last_.gamma, *stage.lambda,
                           stage.gamma);
    // Far from w* it is another landscape: the estimate before it stands.
    if (is_far(stage) && !is_far(last_)) {
      return {.take = false, .outcome = "left: it is further from w* than w* is long"};
    }
    return decision;
  }
  decision.lower = true;
  decision.outcome = fmt::format("lambda moved by {:.2g} +- {:.2g}: gamma is lowered", move.value, move.error);
  last_ = stage;
  last_move_ = std::abs(move.value);
  return decision;
}

/// The rest of a geometric series of moves, since a bias like gamma^p falls by the same factor each time. `at_most`
/// adds the noise of the move; at the rule's gamma, where there is mostly no bias, a move within its noise counts as
/// none.
GammaSearch::Remaining GammaSearch::remaining(const Change& move, double gamma) const {
  const bool at_rule = gamma > rule() / 2 && gamma < rule() * 2;
  const double size = std::abs(move.value);
  const double shown = !at_rule ? size + move.error : size > kSeenMove * move.error ? size : 0;
  // p between 1, also where nothing is seen, and 1/2, also where there is no move before.
  const double factor = shown == 0 ? 0.25 : std::clamp(last_move_ ? shown / *last_move_ : 0.5, 0.25, 0.5);
  const double rest = factor / (1 - factor);
  return {shown * rest, std::sqrt(std::max(0.0, size * size - move.error * move.error)) * rest};
}

bool GammaSearch::settles(const Stage& stage, const Change& move, const Remaining& left) const {
  const double lambda = std::abs(*stage.lambda);
  const bool audible = kSeenMove * move.error <= kLoudestNoise * lambda;
  return stage.gamma < 2 * rule() && audible && left.at_most <= LlcBounds::kGammaBias * lambda;
}

bool GammaSearch::is_hopeless(const Stage& stage, const Change& move, std::optional<std::int64_t> affordable) const {
  const bool lasting = last_move_ && std::abs(move.value) - 2 * move.error > kShrinkage * *last_move_;
  return lasting || stage.gamma < 2 * rule() * kLowest || (affordable && *affordable < kLeastSteps);
}

bool GammaSearch::is_far(const Stage& stage) const {
  return start_length_ > 0 && std::sqrt(*stage.mean_distance) > max_distance_;
}

}  // namespace dds
