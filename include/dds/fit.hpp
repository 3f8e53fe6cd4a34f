// Least-squares lines and means, with confidence intervals. A rate of decay is the slope of such a line.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <span>

namespace DDS_EXPORT dds {

/// The least-squares line y = intercept + slope x.
struct LineFit {
  std::int64_t n = 0;  ///< points
  double slope = 0;
  double intercept = 0;
  double standard_error = 0;  ///< of the slope
  double low = 0, high = 0;   ///< confidence interval of the slope
  double residual = 0;        ///< standard deviation of y about the line, n - 2 degrees of freedom
};

/// Ordinary least squares.
///
/// Points of a training run are not independent. So the standard error for independent residuals is multiplied by
///   sqrt((1 + a) / (1 - a)),
/// a the lag-1 autocorrelation of the residuals in the order given, clamped to [0, 0.9].
/// Interval: Student's t, n - 2 degrees of freedom. It does not allow for curvature: compare the slopes of two halves.
/// Valid input: at least 5 points, series of equal length, all values finite, x not constant, 0 < confidence < 1.
/// Throws InvalidArgument for any other.
LineFit fit_line(std::span<const double> x, std::span<const double> y, double confidence = 0.95);

/// A mean over independent repetitions, such as seeds. Interval: Student's t, n - 1 degrees of freedom.
struct MeanEstimate {
  std::int64_t n = 0;  ///< repetitions
  double mean = 0;
  double standard_error = 0;
  double low = 0, high = 0;
};

/// Mean, standard error and interval of independent values.
/// Valid input: at least 4 values, all finite, 0 < confidence < 1.
/// Throws InvalidArgument for any other.
MeanEstimate estimate_mean(std::span<const double> values, double confidence = 0.95);

}  // namespace dds
