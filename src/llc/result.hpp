// An LlcEstimate as it comes together.
#pragma once

#include <dds/llc.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/llc/objective.hpp"
#include "src/llc/sampling.hpp"
#include "src/llc/stage.hpp"
#include "src/llc/verdict.hpp"
#include "src/llc/workers.hpp"

namespace dds {

/// Collects the trials of one call, and the numbers of the stage that was taken last.
class Result {
 public:
  /// What is known before a chain moves. `replicas`: how they were made. `settled`: how w* was found, if it was.
  Result(const LlcOptions& options, const Objective& objective, const Sampling& sampling, std::string replicas,
         std::optional<Settled> settled);

  /// A trial that is not the estimate.
  void note(const Stage& stage, std::string outcome);
  /// The stage, which the chains have just finished, becomes the estimate.
  void take(const Stage& stage, std::string outcome);
  /// Another outcome for the stage that was taken last.
  void set_outcome(std::string outcome) { estimate_.trials[taken_].outcome = std::move(outcome); }
  /// `move`: none for the first gamma of a search.
  void set_gamma_move(const std::optional<Change>& move, double bias);
  /// At half the step of the stage that was taken last.
  void compare_with_half_step(const Stage& half);

  const Stage& taken() const { return stage_; }

  /// The rest of the numbers, and the verdict. `ending` comes without what the watch knows.
  LlcEstimate conclude(Sampling& sampling, Watch& watch, Ending ending);

 private:
  void take_losses(const Stage& stage);
  void take_weights();
  void look_beside(Sampling& sampling);
  void set_interval();

  const LlcOptions& options_;
  const Objective& objective_;
  const Sampling& sampling_;
  double start_length_;  // |w*|
  Stage stage_;
  std::size_t taken_ = 0;  // number of its trial
  at::Tensor weights_;     // draws of the stage, (chains, draws, d)
  LlcEstimate estimate_;
};

}  // namespace dds
