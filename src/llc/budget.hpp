// How long chains run: as long as was asked for, or as long as the budget of gradients allows.
#pragma once

#include <cstdint>
#include <dds/llc.hpp>
#include <optional>

namespace dds {

/// Lengths are steps per chain. `affordable` is what `Budget::affordable` returned, `relaxation` is 2 / (eps gamma).
class Budget {
 public:
  /// `passes_per_step`: forward and backward passes that one step of all chains takes.
  Budget(const LlcOptions& options, std::int64_t passes_per_step);

  bool automatic_draws() const { return !draws_; }
  /// Steps that are left after so many passes.
  std::int64_t affordable(std::int64_t passes_spent) const;
  std::int64_t burn_in(double relaxation, std::int64_t affordable) const;
  /// Draws before their first assessment.
  std::int64_t first_draws(double relaxation, std::int64_t affordable) const;
  /// Steps to leave to what follows: to further gammas, or to half the step.
  std::int64_t reserve(std::int64_t affordable, bool further_gammas, bool halves_step) const;

 private:
  std::optional<std::int64_t> draws_, burn_in_, max_gradients_;
  bool searches_gamma_;
  std::int64_t passes_per_step_;
};

}  // namespace dds
