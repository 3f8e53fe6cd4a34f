// The search for gamma: from a large one, where chains are short and local, down to one where lambda no longer moves.
#pragma once

#include <cmath>
#include <cstdint>
#include <dds/llc.hpp>
#include <optional>
#include <string>

#include "src/llc/stage.hpp"

namespace dds {

/// The middle of the search, 0.03 sqrt(n beta) mu: right for tens of weights (src/docs/the_method.md). mu is the
/// typical curvature of L_n, by which gamma has the units of 1/w^2. Where no curvature is seen, it counts as 1: nothing
/// says what a small weight is.
double gamma_rule(double n_beta, double typical_curvature);

/// True if smaller gammas would add at most LlcBounds::kGammaBias of lambda, by the response of the draws to gamma.
bool depends_little_on_gamma(const Stage& stage);

/// Decides after the chains at each gamma what comes next. Each gamma is a fourth of the one before.
///
/// The search settles where the bias that gamma still causes is small against lambda. Two measurements tell: the move
/// of lambda from the last gamma, and the response of the draws to gamma. The first has less noise where the loss
/// leaves many weights free, the second where lambda is small.
///
/// The search is limited by gamma where the moves of lambda do not get smaller: at a multiplicity m > 1, where they
/// fall like 1/log^2 gamma, or where chains reach ever more of a landscape. Then the estimate is the one with the
/// smallest error, its bias by gamma included.
class GammaSearch {
 public:
  /// Of the loss around w*, at temperature 1 / n_beta.
  struct Scale {
    double n_beta;
    double typical_curvature;  ///< of L_n
    double largest_curvature;
    std::int64_t parameters;
    double start_length;  ///< |w*|
  };
  GammaSearch(const LlcOptions& options, const Scale& scale);

  /// 4^k times the rule, k >= 1: the first at which a chain stays within |w*| of w*, or that holds chains as the
  /// largest curvature does.
  double first() const;
  double next() const { return last_->gamma / kFactor; }
  /// standard_error / lambda at which chains at this gamma are long enough.
  double target(double gamma) const;
  /// The typical curvature where chains stand. At the first gamma it takes the place of the one that the pilot found.
  /// At lower ones chains are further out, where the curvature may be another.
  void set_typical_curvature(double mu) {
    if (!last_ && mu > 0) rule_ = gamma_rule(scale_.n_beta, mu);
  }

  struct Decision {
    bool take = true;                 ///< the chains at this gamma become the estimate
    bool lower = false;               ///< a lower gamma follows
    std::string outcome;              ///< of the trial
    std::optional<Change> move = {};  ///< lambda here less lambda at the gamma before
    double bias = 0;                  ///< that gamma still causes, beyond the noise of what tells it
  };
  /// The chains at `first`, and then at each `next`. `run_ended`: no further step will be made; `affordable`: steps per
  /// chain that are left, where the length of the chains is automatic.
  Decision decide(const Stage& stage, bool run_ended, std::optional<std::int64_t> affordable);

  /// True if the search settles with these chains, which may then be run on before `decide` looks at them again.
  bool settles(const Stage& stage) const;
  bool settled() const { return settled_; }
  /// The failure, where no gamma will do; empty otherwise.
  const std::string& limited() const { return limited_; }

  /// What smaller gammas would add to lambda.
  struct Remaining {
    double at_most;
    double beyond_noise;
    bool is_small(double lambda) const { return at_most <= LlcBounds::kGammaBias * std::abs(lambda); }
  };

 private:
  static constexpr double kFactor = 4;  // from one gamma to the next

  Remaining remaining(const Stage& stage) const;
  std::string what_limits() const;
  Remaining by_move(const Change& move, double gamma) const;
  bool is_lasting(const Change& move) const;
  bool is_far(const Stage& stage) const;

  Scale scale_;
  double rule_;
  double max_distance_;
  double target_error_;
  std::optional<Stage> last_;
  std::optional<Change> last_move_;
  double smallest_error_;  // of the stages taken: standard error and bias
  std::string taken_;      // the one taken, in words
  double taken_bias_ = 0;
  bool taken_far_ = false;
  bool settled_ = false;
  std::string limited_;
};

}  // namespace dds
