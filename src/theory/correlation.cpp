#include <algorithm>
#include <cmath>
#include <dds/correlation.hpp>
#include <numeric>
#include <vector>

#include "src/base/check.hpp"
#include "src/theory/quantile.hpp"

namespace dds {
namespace {

void check_series(std::string_view function, std::string_view name, std::span<const double> series,
                  std::span<const double> x) {
  check_as_many(function, name, series.size(), "x", x.size());
  check_finite(function, name, series);
}

/// Twice the mid-rank of every value less its mean, 2 rank - (n + 1): whole numbers, so that the sums below are exact.
std::vector<double> centred_ranks(std::span<const double> series) {
  const std::size_t n = series.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return series[a] < series[b]; });
  std::vector<double> ranks(n);
  for (std::size_t begin = 0, end = 0; begin < n; begin = end) {
    for (end = begin; end < n && series[order[end]] == series[order[begin]];) ++end;
    // Ranks begin+1 .. end are tied; twice their mean is begin + end + 1.
    const double centred = static_cast<double>(begin + end) - static_cast<double>(n);
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = centred;
  }
  return ranks;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// Spearman's rho of two series given by their centred ranks; empty for a constant one. Exactly 1 for equal orders.
std::optional<double> rho_of(const std::vector<double>& x, const std::vector<double>& y) {
  const double squares = dot(x, x) * dot(y, y);
  if (squares == 0) return std::nullopt;
  return std::clamp(dot(x, y) / std::sqrt(squares), -1.0, 1.0);
}

RankCorrelation with_interval(std::int64_t n, double rho, std::int64_t degrees, double confidence) {
  const double half = normal_quantile(confidence) * std::sqrt((1 + rho * rho / 2) / static_cast<double>(degrees));
  return {n, rho, std::tanh(std::atanh(rho) - half), std::tanh(std::atanh(rho) + half)};
}

}  // namespace

RankCorrelation spearman(std::span<const double> x, std::span<const double> y, double confidence) {
  check_between("spearman", "confidence", confidence, 0, 1);
  check_series("spearman", "x", x, x);
  check_series("spearman", "y", y, x);
  const auto n = static_cast<std::int64_t>(x.size());
  if (n < kMinCorrelationPairs) return {n, {}, {}, {}};
  const auto rho = rho_of(centred_ranks(x), centred_ranks(y));
  return rho ? with_interval(n, *rho, n - 3, confidence) : RankCorrelation{n, {}, {}, {}};
}

RankCorrelation partial_spearman(std::span<const double> x, std::span<const double> y, std::span<const double> trend,
                                 double confidence) {
  check_between("partial_spearman", "confidence", confidence, 0, 1);
  check_series("partial_spearman", "x", x, x);
  check_series("partial_spearman", "y", y, x);
  check_series("partial_spearman", "trend", trend, x);
  const auto n = static_cast<std::int64_t>(x.size());
  const RankCorrelation undefined{n, {}, {}, {}};
  if (n < kMinCorrelationPairs) return undefined;
  const auto rx = centred_ranks(x), ry = centred_ranks(y), rt = centred_ranks(trend);
  const auto xy = rho_of(rx, ry), xt = rho_of(rx, rt), yt = rho_of(ry, rt);
  if (!xy || !xt || !yt) return undefined;
  // A series whose order is the trend's own has nothing left once the trend is held fixed.
  const double left = (1 - *xt * *xt) * (1 - *yt * *yt);
  if (left <= 0) return undefined;
  const double rho = std::clamp((*xy - *xt * *yt) / std::sqrt(left), -1.0, 1.0);
  return with_interval(n, rho, n - 4, confidence);
}

}  // namespace dds
