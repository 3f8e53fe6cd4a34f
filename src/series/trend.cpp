#include "src/series/trend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kFew = 20;     // values: noise cannot be told from a walk in fewer
constexpr std::size_t kBlocks = 10;  // whose means noise moves less

double product(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// What a least-squares fit of a constant and the columns leaves of y. The columns are made orthogonal on the way.
Values residual_of(std::vector<Values> columns, Values y) {
  columns.insert(columns.begin(), Values(y.size(), 1.0));
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Values column = columns[c];
    const double length = product(column, column);
    if (!(length > 1e-20)) continue;
    const auto take = [&](Values& from) {
      const double share = product(column, from) / length;
      for (std::size_t i = 0; i < from.size(); ++i) from[i] -= share * column[i];
    };
    for (std::size_t later = c + 1; later < columns.size(); ++later) take(columns[later]);
    take(y);
  }
  return y;
}

/// The mean square of means of `size` neighbours each.
double square_of_means(const Values& values, std::size_t size) {
  double squares = 0;
  const std::size_t blocks = values.size() / size;
  for (std::size_t block = 0; block < blocks; ++block) {
    double mean = 0;
    for (std::size_t i = 0; i < size; ++i) mean += values[block * size + i] / static_cast<double>(size);
    squares += mean * mean;
  }
  return squares / static_cast<double>(blocks);
}

}  // namespace

double noise_of(std::span<const double> y) {
  if (y.size() < 3) return 0;
  double squares = 0;
  for (std::size_t i = 1; i + 1 < y.size(); ++i) {
    const double second = y[i - 1] - 2 * y[i] + y[i + 1];
    squares += second * second;
  }
  return std::sqrt(squares / (6 * static_cast<double>(y.size() - 2)));
}

double unexplained(std::span<const double> steps, std::span<const double> y, double fall) {
  const std::size_t n = y.size();
  const Values series(y.begin(), y.end());
  Values best;
  double least = std::numeric_limits<double>::infinity();
  const auto fit = [&](std::vector<Values> columns) {
    const double degrees = static_cast<double>(n) - static_cast<double>(columns.size()) - 2;
    Values residual = residual_of(std::move(columns), series);
    const double variance = product(residual, residual) / std::max(1.0, degrees);
    if (variance < least) {
      least = variance;
      best = std::move(residual);
    }
  };
  Values by_step, by_reading;
  for (std::size_t i = 0; i < n; ++i) {
    by_step.push_back((steps[i] - steps.front()) / (steps.back() - steps.front()));
    by_reading.push_back(static_cast<double>(i) / static_cast<double>(n - 1));
  }
  for (const Values& clock : {by_step, by_reading}) {
    for (std::size_t onset = 0; 2 * onset < n; ++onset) {
      Values line, bend;
      for (const double s : clock) {
        line.push_back(std::max(0.0, s - clock[onset]));
        bend.push_back(line.back() * line.back());
      }
      fit({line, bend});
    }
  }
  for (double scale = 1e-4; scale < 3; scale *= 1.4) {
    Values power, relaxation;
    for (const double s : by_step) {
      power.push_back(std::log1p(s / scale));
      relaxation.push_back(std::expm1(-s / scale));
    }
    fit({power});
    fit({relaxation});
  }
  if (n < kFew) return std::sqrt(least) / fall;
  const std::size_t size = std::max<std::size_t>(1, n / kBlocks);
  const double noise = noise_of(y), share = static_cast<double>(size);
  return std::sqrt(std::max(0.0, square_of_means(best, size) - noise * noise / (2 * share))) / fall;
}

}  // namespace dds
