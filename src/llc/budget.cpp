#include "src/llc/budget.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dds {
namespace {

/// Chains at one gamma use up at most one in so many of the steps that are left.
constexpr std::int64_t kStageShare = 3;

}  // namespace

Budget::Budget(const LlcOptions& options, std::int64_t passes_per_step)
    : draws_(options.draws()),
      burn_in_(options.burn_in()),
      max_gradients_(options.max_gradients()),
      searches_gamma_(!options.gamma()),
      passes_per_step_(passes_per_step) {}

std::int64_t Budget::affordable(std::int64_t passes_spent) const {
  if (!max_gradients_) return std::numeric_limits<std::int64_t>::max() / 4;
  return std::max<std::int64_t>(0, *max_gradients_ - passes_spent) / passes_per_step_;
}

std::int64_t Budget::burn_in(double relaxation, std::int64_t affordable) const {
  if (burn_in_) return *burn_in_;
  // A search for gamma goes on from chains that stand at a larger one: half as long is enough.
  const auto budget = static_cast<double>(affordable);
  const double longest =
      std::max(200.0, std::min(std::max(5000.0, budget / (searches_gamma_ ? 6 : 4)), budget / kStageShare));
  return static_cast<std::int64_t>(
      std::clamp(std::ceil(searches_gamma_ ? relaxation / 2 : relaxation), 200.0, longest));
}

std::int64_t Budget::first_draws(double relaxation, std::int64_t affordable) const {
  if (draws_) return *draws_;
  const auto longest = std::clamp<double>(static_cast<double>(affordable) / kStageShare, 100, 2000);
  return static_cast<std::int64_t>(std::clamp(relaxation / 4, std::min(500.0, longest), longest));
}

std::int64_t Budget::reserve(std::int64_t affordable, bool further_gammas, bool halves_step) const {
  return affordable / kStageShare * (further_gammas ? kStageShare - 1 : halves_step ? 1 : 0);
}

}  // namespace dds
