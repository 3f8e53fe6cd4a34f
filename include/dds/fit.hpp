// Straight lines and means with intervals: what rates of decay and their ratios are read with.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <span>

namespace DDS_EXPORT dds {

/// A least-squares line y = intercept + slope x over n points, and the confidence interval of its slope.
struct LineFit {
  std::int64_t n = 0;
  double slope = 0;
  double intercept = 0;
  double standard_error = 0;  ///< of the slope, the residuals' autocorrelation included
  double low = 0, high = 0;   ///< of the slope
  double residual = 0;        ///< standard deviation of y about the line
};

/// Ordinary least squares. Points of a training run are not independent, so the standard error is that of independent
/// residuals times sqrt((1 + a) / (1 - a)), a their lag-1 autocorrelation in the order given, within [0, 0.9]; the
/// interval is Student's with n - 2 degrees of freedom. It has no term for curvature: compare the slopes of two halves.
/// Throws InvalidArgument for series of unequal length, fewer than 5 points, a value that is not finite, an x that is
/// constant, or a confidence outside (0, 1).
LineFit fit_line(std::span<const double> x, std::span<const double> y, double confidence = 0.95);

/// A mean over independent repetitions, such as seeds, and its confidence interval (Student's).
struct MeanEstimate {
  std::int64_t n = 0;
  double mean = 0;
  double standard_error = 0;
  double low = 0, high = 0;
};

/// Throws InvalidArgument for fewer than 4 values, one that is not finite, or a confidence outside (0, 1).
MeanEstimate estimate_mean(std::span<const double> values, double confidence = 0.95);

}  // namespace dds
