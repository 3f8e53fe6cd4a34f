// The search for gamma: from a large one, where chains are short and local, down to one where lambda no longer moves.
#pragma once

#include <cstdint>
#include <dds/llc.hpp>
#include <optional>
#include <string>

#include "src/llc/stage.hpp"

namespace dds {

/// Decides after the chains at each gamma what comes next. Each gamma is a fourth of the one before. The search settles
/// where the bias that gamma still causes is small against lambda. It is limited by gamma where the moves of lambda do
/// not get smaller: at a multiplicity m > 1, where they fall like 1/log^2 gamma, or where chains reach ever more of a
/// landscape.
class GammaSearch {
 public:
  /// `start_length` is |w*|.
  GammaSearch(const LlcOptions& options, double n_beta, std::int64_t parameters, double start_length);

  /// 4^k times 0.03 sqrt(n beta), k >= 1: the first at which a chain stays within |w*| of w*.
  double first() const;
  double next() const;
  /// standard_error / lambda at which chains at this gamma are long enough.
  double target(double gamma) const;

  /// The chains at `first`.
  void begin(const Stage& stage) { last_ = stage; }

  struct Decision {
    bool take = true;                 ///< the chains at this gamma become the estimate
    bool lower = false;               ///< a lower gamma follows
    bool finite = true;               ///< lambda and its error are numbers
    std::string outcome;              ///< of the trial
    std::optional<Change> move = {};  ///< lambda here less lambda at the gamma before
    double bias = 0;                  ///< that gamma still causes, beyond the noise of the move
  };
  /// The chains at `next`. `run_ended`: no further step will be made; `affordable`: steps per chain that are left,
  /// where the length of the chains is automatic.
  Decision decide(const Stage& stage, bool run_ended, std::optional<std::int64_t> affordable);

  bool settled() const { return settled_; }
  /// Lambda at the last two gammas where no gamma will do; empty otherwise.
  const std::string& limited() const { return limited_; }

 private:
  struct Remaining {
    double at_most;
    double beyond_noise;
  };
  double rule() const;
  Remaining remaining(const Change& move, double gamma) const;
  bool settles(const Stage& stage, const Change& move, const Remaining& left) const;
  bool is_hopeless(const Stage& stage, const Change& move, std::optional<std::int64_t> affordable) const;
  bool is_far(const Stage& stage) const;

  double n_beta_;
  std::int64_t parameters_;
  double start_length_;
  double max_distance_;
  double target_error_;
  Stage last_;
  std::optional<double> last_move_;  // |change of lambda|
  bool settled_ = false;
  std::string limited_;
};

}  // namespace dds
