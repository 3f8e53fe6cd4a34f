#include "src/series/trend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kQuarters = 4;  // whose medians say how far a series has moved
constexpr double kPi = 3.14159265358979323846;
constexpr std::size_t kFew = 20;     // values: noise cannot be told from a walk in fewer
constexpr double kRare = 0.005;      // chance
constexpr double kTie = 0.01;        // of the fall: a smaller step is none
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

double median(std::span<const double> values) {
  Values sorted(values.begin(), values.end());
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double highest_of(std::span<const double> series) {
  double highest = median(series.first(kEnd));
  for (std::size_t i = 1; i + kEnd <= series.size(); ++i) {
    highest = std::max(highest, median(series.subspan(i, kEnd)));
  }
  return highest;
}

double fall(std::span<const double> series) { return median(series.first(kEnd)) - median(series.last(kEnd)); }

double moved(std::span<const double> series) {
  const double noise = noise_of(series);
  struct Place {
    double value, variance;
  };
  std::vector<Place> places{{series.front(), noise * noise}, {series.back(), noise * noise}};
  for (std::size_t quarter = 0; quarter < kQuarters; ++quarter) {
    const std::size_t begin = quarter * series.size() / kQuarters, end = (quarter + 1) * series.size() / kQuarters;
    if (end <= begin) continue;
    const double size = static_cast<double>(end - begin);
    // The variance of a median of normal numbers.
    places.push_back({median(series.subspan(begin, end - begin)), noise * noise * std::min(1.0, kPi / (2 * size))});
  }
  double most = 0;
  for (const Place& a : places) {
    for (const Place& b : places) most = std::max(most, a.value - b.value - 3 * std::sqrt(a.variance + b.variance));
  }
  return most;
}

bool only_rises(std::span<const double> series, double still) {
  const double noise = 3 * noise_of(series);
  double highest = series.front(), most = 0;
  for (std::size_t i = 0; i + kEnd <= series.size(); ++i) {
    const double here = median(series.subspan(i, kEnd));
    highest = std::max(highest, here);
    most = std::max(most, highest - here);
  }
  return fall(series) < -still && most < still + noise;
}

double noise_of(std::span<const double> y) {
  if (y.size() < 3) return 0;
  double squares = 0;
  for (std::size_t i = 1; i + 1 < y.size(); ++i) {
    const double second = y[i - 1] - 2 * y[i] + y[i + 1];
    squares += second * second;
  }
  return std::sqrt(squares / (6 * static_cast<double>(y.size() - 2)));
}

bool rarely_rises(std::span<const double> y) {
  const double tie = kTie * (y.front() - y.back());
  std::size_t steps = 0, rises = 0;
  for (std::size_t i = 1; i < y.size(); ++i) {
    steps += std::abs(y[i] - y[i - 1]) > tie;
    rises += y[i] - y[i - 1] > tie;
  }
  double term = std::pow(0.5, static_cast<double>(steps)), chance = 0;
  for (std::size_t i = 0; i <= rises; ++i) {
    chance += term;
    term *= static_cast<double>(steps - i) / static_cast<double>(i + 1);
  }
  return chance < kRare;
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
