#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/fit.hpp>
#include <numeric>
#include <string_view>
#include <vector>

#include "src/theory/quantile.hpp"

namespace dds {
namespace {

constexpr std::size_t kLeastPoints = 5;  // three degrees of freedom for a line
constexpr std::size_t kLeastValues = 4;  // and for a mean
constexpr double kLargestAutocorrelation = 0.9;

void check_confidence(std::string_view what, double confidence) {
  if (!(confidence > 0 && confidence < 1))
    throw InvalidArgument(fmt::format("{}: confidence = {}, expected a number between 0 and 1", what, confidence));
}

void check_finite(std::string_view what, std::string_view name, std::span<const double> values) {
  const auto bad = std::find_if_not(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
  if (bad != values.end())
    throw InvalidArgument(
        fmt::format("{}: {}[{}] = {}, expected a finite number", what, name, bad - values.begin(), *bad));
}

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

LineFit fit_line(std::span<const double> x, std::span<const double> y, double confidence) {
  check_confidence("fit_line", confidence);
  if (x.size() != y.size())
    throw InvalidArgument(fmt::format("fit_line: x has {} values and y {}, expected as many", x.size(), y.size()));
  if (x.size() < kLeastPoints)
    throw InvalidArgument(fmt::format("fit_line: {} points, expected at least {}", x.size(), kLeastPoints));
  check_finite("fit_line", "x", x);
  check_finite("fit_line", "y", y);

  const double centre_x = mean_of(x), centre_y = mean_of(y);
  double xx = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - centre_x) * (x[i] - centre_x);
    xy += (x[i] - centre_x) * (y[i] - centre_y);
  }
  if (!(xx > 0)) throw InvalidArgument(fmt::format("fit_line: every x is {}, expected different ones", x[0]));

  LineFit fit;
  fit.n = static_cast<std::int64_t>(x.size());
  fit.slope = xy / xx;
  fit.intercept = centre_y - fit.slope * centre_x;
  std::vector<double> residuals;
  for (std::size_t i = 0; i < x.size(); ++i) residuals.push_back(y[i] - centre_y - fit.slope * (x[i] - centre_x));
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
  check_confidence("estimate_mean", confidence);
  if (values.size() < kLeastValues)
    throw InvalidArgument(fmt::format("estimate_mean: {} values, expected at least {}", values.size(), kLeastValues));
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
