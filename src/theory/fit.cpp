#include <algorithm>
#include <cmath>
#include <dds/fit.hpp>
#include <numeric>
#include <vector>

#include "src/base/check.hpp"
#include "src/theory/least_squares.hpp"
#include "src/theory/quantile.hpp"

namespace dds {
namespace {

// Three degrees of freedom.
constexpr std::size_t kLeastPoints = 5;  // of a line
constexpr std::size_t kLeastValues = 4;  // of a mean
constexpr double kLargestAutocorrelation = 0.9;

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Lag-1 autocorrelation of residuals, as far as it widens an interval.
double autocorrelation(const std::vector<double>& residuals, double squares) {
  if (squares == 0) return 0;
  double products = 0;
  for (std::size_t i = 1; i < residuals.size(); ++i) products += residuals[i] * residuals[i - 1];
  return std::clamp(products / squares, 0.0, kLargestAutocorrelation);
}

}  // namespace

CentredSums centred_sums(std::span<const double> x, std::span<const double> y) {
  CentredSums sums{mean_of(x), mean_of(y), 0, 0};
  for (std::size_t i = 0; i < x.size(); ++i) {
    sums.xx += (x[i] - sums.mean_x) * (x[i] - sums.mean_x);
    sums.xy += (x[i] - sums.mean_x) * (y[i] - sums.mean_y);
  }
  return sums;
}

LineFit fit_line(std::span<const double> x, std::span<const double> y, double confidence) {
  check_between("fit_line", "confidence", confidence, 0, 1);
  check_as_many("fit_line", "y", y.size(), "x", x.size());
  check_at_least("fit_line", "the size of x", x.size(), kLeastPoints);
  check_finite("fit_line", "x", x);
  check_finite("fit_line", "y", y);

  const auto [mean_x, mean_y, xx, xy] = centred_sums(x, y);
  check(xx > 0, "fit_line", "every x", x[0], "different ones");

  LineFit fit;
  fit.n = static_cast<std::int64_t>(x.size());
  fit.slope = xy / xx;
  fit.intercept = mean_y - fit.slope * mean_x;
  std::vector<double> residuals;
  for (std::size_t i = 0; i < x.size(); ++i) residuals.push_back(y[i] - mean_y - fit.slope * (x[i] - mean_x));
  const double squares = std::inner_product(residuals.begin(), residuals.end(), residuals.begin(), 0.0);
  const double degrees = static_cast<double>(x.size() - 2);
  const double a = autocorrelation(residuals, squares);
  fit.residual = std::sqrt(squares / degrees);
  fit.standard_error = fit.residual / std::sqrt(xx) * std::sqrt((1 + a) / (1 - a));
  const double half = student_quantile(confidence, degrees) * fit.standard_error;
  fit.low = fit.slope - half;
  fit.high = fit.slope + half;
  return fit;
}

MeanEstimate estimate_mean(std::span<const double> values, double confidence) {
  check_between("estimate_mean", "confidence", confidence, 0, 1);
  check_at_least("estimate_mean", "the size of values", values.size(), kLeastValues);
  check_finite("estimate_mean", "values", values);
  const double n = static_cast<double>(values.size());
  MeanEstimate estimate;
  estimate.n = static_cast<std::int64_t>(values.size());
  estimate.mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  estimate.standard_error = std::sqrt(squares / (n - 1) / n);
  const double half = student_quantile(confidence, n - 1) * estimate.standard_error;
  estimate.low = estimate.mean - half;
  estimate.high = estimate.mean + half;
  return estimate;
}

}  // namespace dds
