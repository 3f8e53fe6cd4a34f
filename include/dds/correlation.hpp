// Rank correlations between two series of readings, with intervals, and with the common trend over training taken out.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <span>

namespace DDS_EXPORT dds {

/// A rank correlation over `n` pairs and its confidence interval. Empty where it is not defined: fewer than
/// kMinCorrelationPairs pairs, or a series that is constant. At rho = 1 or -1 Fisher's z is infinite and the interval
/// shrinks to that point: read it with n beside it.
struct RankCorrelation {
  std::int64_t n = 0;
  std::optional<double> rho;
  std::optional<double> low;
  std::optional<double> high;
};

/// Below this many pairs no correlation is given (DESIGN.md section 11).
inline constexpr std::int64_t kMinCorrelationPairs = 6;

/// Spearman's rho; ties get the mean of their ranks. Interval: Fisher's z with variance (1 + rho^2/2)/(n - 3)
/// (Bonett and Wright 2000). Throws InvalidArgument for series of unequal length, a value that is not finite, or a
/// confidence outside (0, 1).
RankCorrelation spearman(std::span<const double> x, std::span<const double> y, double confidence = 0.95);

/// Spearman's rho of x and y with `trend` held fixed (partial rank correlation): what is left once both are allowed to
/// move with training. Also empty where x or y is in the very order of `trend`, or in its reverse: then nothing is
/// left. Interval as above with n - 4 in the place of n - 3. Throws as `spearman`.
RankCorrelation partial_spearman(std::span<const double> x, std::span<const double> y, std::span<const double> trend,
                                 double confidence = 0.95);

}  // namespace dds
