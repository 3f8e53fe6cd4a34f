// The step size eps of a chain.
#pragma once

#include <algorithm>
#include <cstdint>
#include <dds/llc.hpp>
#include <limits>
#include <optional>

namespace dds {

/// eps is what was given, or else a share c of the inverse of the largest curvature of U that was seen:
///   eps = c / h_max,   h_max = n_beta mu_max + gamma P_max
/// or less, where the noise of mini-batches asks for it.
class StepRule {
 public:
  /// `mini_batch`: samples per step, where these are not all.
  StepRule(const LlcOptions& options, double n_beta, std::optional<std::int64_t> mini_batch);

  bool automatic() const { return !given_; }
  /// A curvature of L_n, in w / sqrt(P). Counts if it is finite and the largest so far.
  void see(double mu);
  /// The noise of mini-batches adds `heat_by_eps` eps to `lambda`: from here on, a step keeps that within its bound.
  void see_noise(double heat_by_eps, double lambda);
  /// What was seen so far counts no longer; `mu` does.
  void forget(double mu = 0) { mu_max_ = mu; }
  /// From here on with a preconditioner whose largest entry is `largest`: curvatures seen before no longer count.
  void precondition(double largest);

  double mu_max() const { return mu_max_; }
  double h_max(double gamma) const { return n_beta_ * mu_max_ + gamma * largest_; }
  double eps(double gamma) const { return given_ ? *given_ : std::min(relative_ / h_max(gamma), quiet_); }
  /// For chains of calibration: automatic, and without the bound for mini-batches.
  double calibration_eps(double gamma) const { return calibration_relative_ / h_max(gamma); }

 private:
  std::optional<double> given_;
  double calibration_relative_;
  double relative_;
  double n_beta_;
  double mu_max_ = 0;
  double largest_ = 1;                                      // P_max
  double quiet_ = std::numeric_limits<double>::infinity();  // the longest step within the bound of the noise
};

/// Brings the step of a Metropolis chain to an acceptance of 0.8, by stochastic approximation of log eps over the
/// blocks of a burn-in (Robbins and Monro):
///   log eps += a / sqrt(1 + block) (acceptance - 0.8)
class StepAdaptation {
 public:
  static constexpr int kBlocks = 20;

  /// `again`: the step was adapted before, at another gamma. a is then 2, otherwise 4.
  StepAdaptation(double eps, bool again);

  /// Takes the mean acceptance of the block and returns eps for the next one, at most 2.5 / h_max. There about six in
  /// ten proposals are accepted. At 4 / h_max hardly any is, and chains would get stuck where the curvature is largest.
  double after(int block, double acceptance, double h_max);
  /// The geometric mean over the second half of the blocks; empty before there is one.
  std::optional<double> mean(double h_max) const;

 private:
  double log_eps_;
  double gain_;
  double sum_ = 0;
  int summed_ = 0;
};

}  // namespace dds
