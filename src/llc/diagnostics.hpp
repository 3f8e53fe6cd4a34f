// Diagnostics of Markov chains: pure functions on traces, one vector of draws per chain, all of one length.
// Names and formulas follow Vehtari, Gelman, Simpson, Carpenter and Buerkner (Bayesian Analysis 16, 2021). Effective
// sizes and errors are those of the draws themselves, not of their ranks: what is judged here is the error of a mean.
#pragma once

#include <optional>
#include <vector>

namespace dds::diagnostics {

using Traces = std::vector<std::vector<double>>;

/// Mean over all draws of all chains.
double mean(const Traces& traces);

/// Split R-hat: each chain is cut in two, N draws a half; sqrt((W (N-1)/N + B/N) / W) with W the mean variance within
/// the halves and B N times the variance between their means. Empty with fewer than 4 draws a chain, or if nothing
/// varies.
std::optional<double> split_r_hat(const Traces& traces);

/// Rank-normalised split R-hat: the larger of split_r_hat of the draws' normal scores, z = Phi^-1((rank - 3/8) / (S +
/// 1/4)), ties sharing their mean rank, and of the normal scores of |x - median|, which see chains of different spread.
/// Empty as for split_r_hat.
std::optional<double> rank_r_hat(const Traces& traces);

/// How well the mean of all draws is known.
struct Precision {
  /// Effective sample size, over split chains: S / (1 + 2 sum_t rho_t), the sum cut by Geyer's initial monotone
  /// sequence. At most S log10(S), S the number of draws.
  double ess = 0;
  double standard_error = 0;  ///< Monte Carlo: standard deviation / sqrt(ess)
};

/// Empty as for split_r_hat.
std::optional<Precision> precision(const Traces& traces);

/// Geweke's drift: (mean of the first fifth - mean of the last half) over the standard error of that difference.
/// Empty with fewer than 20 draws a chain, or if nothing varies.
std::optional<double> drift(const Traces& traces);

}  // namespace dds::diagnostics
