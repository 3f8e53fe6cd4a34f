#include "src/llc/diagnostics.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

namespace dds::diagnostics {
namespace {

double mean(const std::vector<double>& draws) {
  return std::accumulate(draws.begin(), draws.end(), 0.0) / static_cast<double>(draws.size());
}

/// sum_i (x_i - m)(x_(i+lag) - m) / N.
double autocovariance(const std::vector<double>& draws, double m, std::size_t lag) {
  double sum = 0;
  for (std::size_t i = 0; i + lag < draws.size(); ++i) sum += (draws[i] - m) * (draws[i + lag] - m);
  return sum / static_cast<double>(draws.size());
}

/// The first and the last half of each chain; of an odd number of draws the middle one is left out.
Traces split(const Traces& traces) {
  Traces halves;
  for (const auto& draws : traces) {
    const auto half = static_cast<std::ptrdiff_t>(draws.size() / 2);
    halves.emplace_back(draws.begin(), draws.begin() + half);
    halves.emplace_back(draws.end() - half, draws.end());
  }
  return halves;
}

/// Draws [begin, end) of each chain.
Traces window(const Traces& traces, std::size_t begin, std::size_t end) {
  Traces part;
  for (const auto& draws : traces) {
    part.emplace_back(draws.begin() + static_cast<std::ptrdiff_t>(begin),
                      draws.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return part;
}

/// The split chains with what both R-hat and the effective sample size are made of.
struct Halves {
  Traces traces;
  std::vector<double> means;
  double within = 0;  ///< W
  double total = 0;   ///< W (N-1)/N + B/N

  std::size_t draws() const { return traces[0].size(); }
};

std::optional<Halves> halves_of(const Traces& traces) {
  if (traces.empty() || traces[0].size() < 4) return std::nullopt;
  Halves halves{split(traces), {}};
  const auto draws = static_cast<double>(halves.draws());
  for (const auto& half : halves.traces) {
    halves.means.push_back(mean(half));
    halves.within += autocovariance(half, halves.means.back(), 0) * draws / (draws - 1);
  }
  const auto count = static_cast<double>(halves.traces.size());
  halves.within /= count;
  const double between = autocovariance(halves.means, mean(halves.means), 0) * count / (count - 1);  // B/N
  halves.total = halves.within * (draws - 1) / draws + between;
  if (!(halves.within > 0) || !std::isfinite(halves.total)) return std::nullopt;
  return halves;
}

/// rho_t = 1 - (W - mean over the chains of the autocovariance at lag t, unbiased as W is) / total.
double autocorrelation(const Halves& halves, std::size_t lag) {
  const auto draws = static_cast<double>(halves.draws());
  double covariance = 0;
  for (std::size_t i = 0; i < halves.traces.size(); ++i) {
    covariance += autocovariance(halves.traces[i], halves.means[i], lag) * draws / (draws - 1);
  }
  return 1 - (halves.within - covariance / static_cast<double>(halves.traces.size())) / halves.total;
}

/// z with P(N(0, 1) <= z) = p, relative error 5e-4 (Abramowitz and Stegun 26.2.23): scores of ranks need no more.
double normal_score(double p) {
  const double tail = std::min(p, 1 - p);
  const double t = std::sqrt(-2 * std::log(tail));
  const double z =
      t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  return p < 0.5 ? -z : z;
}

/// Normal scores of the ranks of all draws together.
Traces normal_scores(const Traces& traces) {
  std::vector<std::pair<double, std::pair<std::size_t, std::size_t>>> order;
  for (std::size_t c = 0; c < traces.size(); ++c) {
    for (std::size_t i = 0; i < traces[c].size(); ++i) order.push_back({traces[c][i], {c, i}});
  }
  std::sort(order.begin(), order.end());
  const auto count = static_cast<double>(order.size());
  Traces scores = traces;
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && order[end].first == order[begin].first) ++end;
    const double rank = static_cast<double>(begin + 1 + end) / 2;
    const double score = normal_score((rank - 0.375) / (count + 0.25));
    for (std::size_t k = begin; k < end; ++k) scores[order[k].second.first][order[k].second.second] = score;
  }
  return scores;
}

/// |x - median|.
Traces folded(const Traces& traces) {
  std::vector<double> all;
  for (const auto& draws : traces) all.insert(all.end(), draws.begin(), draws.end());
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::nth_element(all.begin(), middle, all.end());
  Traces result = traces;
  for (auto& draws : result) {
    for (auto& x : draws) x = std::abs(x - *middle);
  }
  return result;
}

bool all_finite(const Traces& traces) {
  return std::all_of(traces.begin(), traces.end(), [](const auto& draws) {
    return std::all_of(draws.begin(), draws.end(), [](double x) { return std::isfinite(x); });
  });
}

}  // namespace

double mean(const Traces& traces) {
  double sum = 0;
  for (const auto& draws : traces) sum += mean(draws);
  return sum / static_cast<double>(traces.size());
}

std::optional<double> split_r_hat(const Traces& traces) {
  const auto halves = halves_of(traces);
  if (!halves) return std::nullopt;
  return std::sqrt(halves->total / halves->within);
}

std::optional<double> rank_r_hat(const Traces& traces) {
  if (!all_finite(traces)) return std::nullopt;
  const auto bulk = split_r_hat(normal_scores(traces));
  if (!bulk) return std::nullopt;
  const auto tails = split_r_hat(normal_scores(folded(traces)));
  return tails ? std::max(*bulk, *tails) : *bulk;
}

std::optional<Precision> precision(const Traces& traces) {
  const auto halves = halves_of(traces);
  if (!halves) return std::nullopt;
  // Geyer: the sums of pairs rho_(2k) + rho_(2k+1) of a reversible chain are positive and fall; noise in the tail is
  // where they stop doing so.
  double sum_of_pairs = 0, last_pair = INFINITY;
  for (std::size_t lag = 0; lag + 1 < halves->draws(); lag += 2) {
    const double even = lag == 0 ? 1 : autocorrelation(*halves, lag);
    const double pair = std::min(even + autocorrelation(*halves, lag + 1), last_pair);
    if (!(pair > 0)) break;
    sum_of_pairs += pair;
    last_pair = pair;
  }
  const auto draws = static_cast<double>(halves->traces.size() * halves->draws());
  // An antithetic chain can beat independent draws, but not without bound.
  const double time = std::max(2 * sum_of_pairs - 1, 1 / std::log10(draws));
  return Precision{draws / time, std::sqrt(halves->total * time / draws)};
}

std::optional<double> drift(const Traces& traces) {
  if (traces.empty() || traces[0].size() < 20) return std::nullopt;
  const auto draws = traces[0].size();
  const auto early = window(traces, 0, draws / 5);
  const auto late = window(traces, draws - draws / 2, draws);
  const auto of_early = precision(early), of_late = precision(late);
  if (!of_early || !of_late) return std::nullopt;
  return (mean(early) - mean(late)) / std::hypot(of_early->standard_error, of_late->standard_error);
}

}  // namespace dds::diagnostics
