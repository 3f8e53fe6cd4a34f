// Rank correlations between two series of readings, with confidence intervals. The partial one takes out a common trend
// over training.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <span>

namespace DDS_EXPORT dds {

/// A rank correlation and its confidence interval.
///
/// rho, low and high are empty with fewer than kMinCorrelationPairs pairs, or if a series is constant.
/// At rho = 1 and -1 the interval is that point, because Fisher's z is infinite there. Judge by n then.
struct RankCorrelation {
  std::int64_t n = 0;  ///< pairs
  std::optional<double> rho;
  std::optional<double> low;
  std::optional<double> high;
};

/// Fewest pairs for which a correlation is given (src/docs/the_method.md, Correlations and intervals).
inline constexpr std::int64_t kMinCorrelationPairs = 6;

/// Spearman's rho: the correlation of the ranks. Ties get the mean of their ranks.
///
/// Interval: tanh(atanh(rho) +- q sqrt((1 + rho^2/2) / (n - 3))), with q the two-sided quantile of the normal
/// distribution (Bonett and Wright 2000).
/// Valid input: series of equal length, all values finite, 0 < confidence < 1.
/// Throws InvalidArgument for any other.
RankCorrelation spearman(std::span<const double> x, std::span<const double> y, double confidence = 0.95);

/// The partial rank correlation of x and y, with `trend` held fixed. Two series that both move with training correlate
/// for that reason alone. This is the correlation that is left without it.
///
///   rho = (rho_xy - rho_xt rho_yt) / sqrt((1 - rho_xt^2)(1 - rho_yt^2))
///
/// Empty also if x or y has the order of `trend` or the reverse order: then nothing is left.
/// Interval: as for `spearman`, with n - 4 in place of n - 3.
/// Valid input, throws: as `spearman`.
RankCorrelation partial_spearman(std::span<const double> x, std::span<const double> y, std::span<const double> trend,
                                 double confidence = 0.95);

}  // namespace dds
