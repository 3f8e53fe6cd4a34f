#include "src/llc/diagnostics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/seed.hpp"

namespace dds::diagnostics {
namespace {

/// Stationary AR(1) chains x_t = phi x_(t-1) + N(0, 1), whose autocorrelation time is (1 + phi) / (1 - phi).
Traces autoregressive(double phi, int chains, int draws, unsigned seed) {
  std::mt19937_64 engine(test::seed(seed));
  std::normal_distribution<double> normal;
  Traces traces;
  for (int c = 0; c < chains; ++c) {
    double x = normal(engine) / std::sqrt(1 - phi * phi);
    auto& trace = traces.emplace_back();
    for (int t = 0; t < draws; ++t) trace.push_back(x = phi * x + normal(engine));
  }
  return traces;
}

class AutoregressiveChains : public testing::TestWithParam<double> {};

TEST_P(AutoregressiveChains, EffectiveSampleSizeIsDrawsOverAutocorrelationTime) {
  const double phi = GetParam();
  // Of n draws the autocorrelation time is known to sqrt(2 (2 W + 1) / n), W the lags that are summed, some five of it:
  // 1.7 % to 2.3 % here, so that the tolerance is four standard errors or more.
  const double time = (1 + phi) / (1 - phi);
  const int draws = static_cast<int>(20000 * std::max(1.0, time));
  const auto traces = autoregressive(phi, 4, draws, 7);
  const double expected = 4 * draws / time;
  EXPECT_NEAR(precision(traces)->ess / expected, 1.0, 0.1);
  const double variance = 1 / (1 - phi * phi);
  EXPECT_NEAR(precision(traces)->standard_error / std::sqrt(variance / expected), 1.0, 0.08);
}

INSTANTIATE_TEST_SUITE_P(Phi, AutoregressiveChains, testing::Values(-0.3, 0.0, 0.5, 0.9));

TEST(Diagnostics, StandardErrorIsTheSpreadOfTheMeanOverRepetitions) {
  double squares = 0, errors = 0;
  const int repetitions = 800;  // the spread is known to 1 / sqrt(1600), a sixth of the tolerance
  for (unsigned seed = 0; seed < repetitions; ++seed) {
    const auto traces = autoregressive(0.8, 2, 1000, seed);
    squares += std::pow(mean(traces), 2);
    errors += precision(traces)->standard_error;
  }
  EXPECT_NEAR(errors / repetitions / std::sqrt(squares / repetitions), 1.0, 0.15);
}

// F = sum over j of x_j^2 / 2 has the mean 5/2. To stop by the error that is measured favours errors measured too
// small.
TEST(Diagnostics, IntervalsOfChainsThatRunUntilTheErrorIsSmallHoldTheMean) {
  constexpr int kRepetitions = 300, kChains = 4, kWeights = 5;
  std::mt19937_64 engine(test::seed(12));
  std::normal_distribution<double> normal;
  const double phi = 0.7;
  int held = 0;
  for (int i = 0; i < kRepetitions; ++i) {
    std::vector<std::vector<double>> x(kChains, std::vector<double>(kWeights));
    for (auto& chain : x) {
      for (double& weight : chain) weight = normal(engine);
    }
    Traces traces(kChains);
    const auto draw = [&](std::size_t draws) {
      for (std::size_t c = 0; c < traces.size(); ++c) {
        for (std::size_t t = 0; t < draws; ++t) {
          double f = 0;
          for (double& weight : x[c]) {
            weight = phi * weight + std::sqrt(1 - phi * phi) * normal(engine);
            f += weight * weight / 2;
          }
          traces[c].push_back(f);
        }
      }
    };
    draw(250);
    while (precision(traces)->standard_error > 0.02 * mean(traces)) draw(traces[0].size());
    held += std::abs(mean(traces) - 0.5 * kWeights) <= 1.96 * precision(traces)->standard_error;
  }
  // 95 %, known to sqrt(0.95 * 0.05 / 300) = 1.3 %.
  EXPECT_NEAR(static_cast<double>(held) / kRepetitions, 0.95, 0.042);
}

TEST(Diagnostics, SplitRHatMatchesItsDefinition) {
  const Traces traces = {{1, 2, 4, 3}, {2, 5, 3, 7}};
  // Halves {1,2} {4,3} {2,5} {3,7}: means 1.5 3.5 3.5 5, variances .5 .5 4.5 8; N = 2.
  const double within = (0.5 + 0.5 + 4.5 + 8) / 4;
  const double grand = (1.5 + 3.5 + 3.5 + 5) / 4;
  const double between =
      (std::pow(1.5 - grand, 2) + 2 * std::pow(3.5 - grand, 2) + std::pow(5 - grand, 2)) / 3;  // B / N
  EXPECT_DOUBLE_EQ(*split_r_hat(traces), std::sqrt((within / 2 + between) / within));
}

TEST(Diagnostics, SplitRHatIsOneForGoodChainsAndLargeForChainsApartOrTrending) {
  EXPECT_NEAR(*split_r_hat(autoregressive(0.5, 4, 5000, 1)), 1.0, 0.01);
  auto apart = autoregressive(0.5, 4, 5000, 2);
  for (auto& x : apart[0]) x += 3;
  EXPECT_GT(*split_r_hat(apart), 1.3);
  auto trending = autoregressive(0.5, 4, 5000, 3);
  for (auto& trace : trending) {
    for (std::size_t t = 0; t < trace.size(); ++t) trace[t] += 1e-3 * static_cast<double>(t);
  }
  EXPECT_GT(*split_r_hat(trending), 1.2);
}

TEST(Diagnostics, RanksSeeWhatHeavyTailsAndEqualMeansHide) {
  EXPECT_NEAR(*rank_r_hat(autoregressive(0.5, 4, 5000, 1)), 1.0, 0.01);
  // A monotone map changes no rank.
  auto traces = autoregressive(0.5, 4, 2000, 2);
  for (auto& x : traces[0]) x += 1;
  const double before = *rank_r_hat(traces);
  EXPECT_GT(before, 1.05);
  // One chain of twice the spread and the same mean.
  auto wide = autoregressive(0.5, 4, 2000, 3);
  for (auto& x : wide[0]) x *= 3;
  EXPECT_LT(*split_r_hat(wide), 1.03);
  EXPECT_GT(*rank_r_hat(wide), 1.1);
  // Cauchy draws, one chain apart by a few of their widths: the variance drowns it, the ranks do not.
  std::mt19937_64 engine(test::seed(4));
  std::cauchy_distribution<double> cauchy;
  Traces heavy(4, std::vector<double>(2000));
  for (auto& trace : heavy) {
    for (auto& x : trace) x = cauchy(engine);
  }
  for (auto& x : heavy[0]) x += 4;
  EXPECT_LT(*split_r_hat(heavy), 1.03);
  EXPECT_GT(*rank_r_hat(heavy), 1.1);
}

TEST(Diagnostics, ChainsApartHaveFewEffectiveDraws) {
  auto apart = autoregressive(0.0, 2, 2000, 4);
  for (auto& x : apart[0]) x += 10;
  EXPECT_LT(precision(apart)->ess, 10);
}

TEST(Diagnostics, DriftIsStandardNormalForStationaryChainsAndSeesATrend) {
  double squares = 0;
  const int repetitions = 800;  // the mean of the squares is known to sqrt(2 / 800), a seventh of the tolerance
  for (unsigned seed = 0; seed < repetitions; ++seed) {
    squares += std::pow(*drift(autoregressive(0.6, 4, 1000, seed)), 2);
  }
  EXPECT_NEAR(squares / repetitions, 1.0, 0.35);
  auto trending = autoregressive(0.6, 4, 1000, 5);
  for (auto& trace : trending) {
    for (std::size_t t = 0; t < trace.size(); ++t) trace[t] += 2e-3 * static_cast<double>(t);
  }
  EXPECT_LT(*drift(trending), -4);
}

TEST(Diagnostics, NothingToSayOfConstantOrTooShortTraces) {
  const Traces constant(2, std::vector<double>(100, 1.5));
  EXPECT_FALSE(split_r_hat(constant));
  EXPECT_FALSE(precision(constant));
  EXPECT_FALSE(drift(constant));
  EXPECT_FALSE(split_r_hat({{1, 2, 3}}));
  EXPECT_FALSE(split_r_hat({}));
  EXPECT_FALSE(rank_r_hat(constant));
  EXPECT_FALSE(rank_r_hat({}));
  EXPECT_FALSE(drift({std::vector<double>(19, 0)}));
}

TEST(Diagnostics, NothingToSayOfTracesWithoutFiniteNumbers) {
  Traces traces = autoregressive(0.5, 2, 100, 6);
  traces[0][3] = NAN;
  EXPECT_FALSE(split_r_hat(traces));
  EXPECT_FALSE(rank_r_hat(traces));
  EXPECT_FALSE(precision(traces));
}

}  // namespace
}  // namespace dds::diagnostics
