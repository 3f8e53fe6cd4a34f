// Diagnostics of Markov chains. A trace has one vector of draws per chain, all of one length.
// Names and formulas follow Vehtari, Gelman, Simpson, Carpenter and Buerkner (Bayesian Analysis 16, 2021). They give
// effective sizes of ranks too. Here only those of the draws themselves count: they tell the error of the mean.
#pragma once

#include <optional>
#include <vector>

namespace dds::diagnostics {

using Traces = std::vector<std::vector<double>>;

/// Mean over all draws of all chains.
double mean(const Traces& traces);

/// Split R-hat. Each chain is cut into two halves of N draws. With W the mean of the variances within the halves, and
/// B/N the variance of their means, it is sqrt((W (N-1)/N + B/N) / W): 1 for chains that agree.
/// Empty with fewer than 4 draws a chain, or if nothing varies.
std::optional<double> split_r_hat(const Traces& traces);

/// Rank-normalised split R-hat: the larger of two split R-hats.
/// - That of the normal scores of the draws, z = Phi^-1((rank - 3/8) / (S + 1/4)), with S draws in all. Equal draws
/// have
///   their mean rank. Heavy tails do not hide a difference in these.
/// - That of the normal scores of |x - median|. It sees chains of equal means and different spreads.
/// Empty as split_r_hat.
std::optional<double> rank_r_hat(const Traces& traces);

/// How well the mean of all draws is known.
struct Precision {
  /// Effective sample size of the S draws of the split chains: S / (1 + 2 sum_t rho_t), at most S log10(S). The sum
  /// ends where Geyer's initial monotone sequence does.
  double ess = 0;
  double standard_error = 0;  ///< Monte Carlo: standard deviation / sqrt(ess)
};

/// Empty as for split_r_hat.
std::optional<Precision> precision(const Traces& traces);

/// Geweke's drift: the mean of the first fifth of the draws less that of the last half, over the standard error of this
/// difference. Empty with fewer than 20 draws a chain, or if nothing varies.
std::optional<double> drift(const Traces& traces);

}  // namespace dds::diagnostics
