// The chains of an estimate: calibrated, burnt in and drawn from, at one gamma and step after another.
#pragma once

#include <cstdint>
#include <dds/llc.hpp>
#include <functional>
#include <optional>
#include <vector>

#include "src/llc/budget.hpp"
#include "src/llc/calibration.hpp"
#include "src/llc/chain.hpp"
#include "src/llc/elsewhere.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/saddle.hpp"
#include "src/llc/samplers.hpp"
#include "src/llc/spread.hpp"
#include "src/llc/stage.hpp"
#include "src/llc/step_rule.hpp"
#include "src/llc/workers.hpp"

namespace dds {

class Sampling {
 public:
  Sampling(const LlcOptions& options, const Objective& objective, const std::vector<Replica>& replicas, Watch& watch);

  /// Finds the largest curvature, and the preconditioner of a sampler that has one. `gamma`: the one that is sampled;
  /// none: it is searched for, and the typical curvature is looked at too.
  void calibrate(std::optional<double> gamma);
  /// Burns in at this gamma and draws until standard_error <= target lambda, or the budget's share is spent.
  Stage sample(double gamma, double target);
  /// Goes on with a stage that the chains have just finished, with all that the budget has left for it.
  Stage draw_on(const Stage& stage, double target);
  /// The same at half the step of an earlier stage.
  Stage sample_at_half_step(const Stage& whole, double target);
  /// An upper bound of LlcDiagnostics::descent; the simple one if no further pass may be made.
  double descent(double gamma, bool run_ended);
  /// Whether w* is a saddle, by the curvature there and by where the chains lead. `descent`: of the gradient at w*,
  /// which takes that much off lambda without a saddle.
  Saddle saddle(double gamma, double descent);
  /// LlcDiagnostics::rounding, where the chains stand.
  std::optional<double> rounding();
  /// What no chain of the stage saw, within `reach` of w*. `weights`: draws of the stage. Empty where it is not looked
  /// for.
  std::optional<Elsewhere> elsewhere(const Stage& stage, const at::Tensor& weights, double reach);
  /// A look beside the chains, one of those above, ended by time or was called off.
  bool cut_short() const { return cut_short_; }
  /// On ranks other than the first: runs the chains that are this rank's.
  void serve();

  const Dynamics& dynamics() const { return dynamics_; }
  const SamplerPolicy& policy() const { return *policy_; }
  const StepRule& step_rule() const { return step_rule_; }
  const std::vector<Chain>& chains() const { return chains_; }
  /// Root mean square of the curvatures of L_n, over all directions and over the places where the chains (before they
  /// start: the pilot) stood in the last look.
  double typical_curvature() const;
  /// True where an estimate at half the step follows: the sampler has a bias in the step.
  bool halves_step() const { return !policy_->metropolis && options_.halve_step(); }
  std::int64_t passes_spent() const;
  /// Steps per chain that are left of the budget.
  std::int64_t affordable() const { return budget_.affordable(passes_spent()); }
  /// E[(w - w*) . grad U] is known in the stationary state.
  bool knows_identity() const { return objective_.full_batch() || !policy_->keeps_batch_bias; }

 private:
  bool looks_elsewhere() const;
  std::function<bool()> stop();
  void run_pilot();
  std::optional<double> walk_pilot(double longest);
  void precondition();
  void look(const at::Tensor& scale = {});
  void forget_looks() { squares_ = places_ = 0; }
  void look_where_chains_stand();
  /// What the noise of mini-batches adds to lambda where the chains stand, over eps, and lambda as these points show
  /// it.
  struct Heat {
    double by_eps, lambda;
  };
  std::optional<Heat> heat();
  Stage with_heat(Stage stage);
  std::int64_t burn_in();
  std::int64_t burn_in_adapting();
  std::int64_t burn_in_length() const { return budget_.burn_in(relaxation(), affordable()); }
  double relaxation() const { return 2 / (dynamics_.eps * dynamics_.gamma); }
  double h_max() const { return step_rule_.h_max(dynamics_.gamma); }
  Stage draw(std::int64_t burn_in, double target, std::int64_t reserve);
  Stage draw_until(Stage stage, double target, std::int64_t reserve);
  Stage summed_up() const { return summarise(chains_, dynamics_, objective_.start().numel(), knows_identity()); }
  void draw_in_rounds(std::int64_t draws);
  void expect(std::int64_t steps) { watch_.expect(steps * std::ssize(chains_)); }
  void advance_chains(const Dynamics& dynamics, std::int64_t steps, Keep keep);
  RunChains run_chains();

  const LlcOptions& options_;
  const Objective& objective_;
  const std::vector<Replica>& replicas_;  // the first is the caller's model
  Watch& watch_;
  Dynamics dynamics_;
  const SamplerPolicy* policy_;
  StepRule step_rule_;
  Budget budget_;
  CurvatureProbe probe_;
  std::vector<Chain> chains_;
  bool adapted_ = false;      // a Metropolis step was found at an earlier gamma
  bool chains_seen_ = false;  // the curvatures are those where chains stood, no longer the pilot's
  bool cut_short_ = false;
  std::int64_t other_passes_ = 0;  // of the pilot, and of looks beside the chains
  double squares_ = 0;             // of curvatures, summed over the places of the last look
  int places_ = 0;
  std::uint64_t noises_ = 0;  // looks at the noise so far
};

}  // namespace dds
