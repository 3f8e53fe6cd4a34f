// Rank correlations against computations that share nothing with the library's, and their invariances over random
// series.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <dds/correlation.hpp>
#include <dds/error.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "tests/seed.hpp"

namespace {

using Series = std::vector<double>;

/// Ranks by counting, quadratic and obvious.
Series ranks(const Series& x) {
  Series out;
  for (const double a : x) {
    const auto less = std::count_if(x.begin(), x.end(), [&](double b) { return b < a; });
    const auto equal = std::count(x.begin(), x.end(), a);
    out.push_back(static_cast<double>(less) + (static_cast<double>(equal) + 1) / 2);
  }
  return out;
}

double mean(const Series& x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

double covariance(const Series& x, const Series& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += (x[i] - mean(x)) * (y[i] - mean(y));
  return sum;
}

double pearson(const Series& x, const Series& y) {
  return covariance(x, y) / std::sqrt(covariance(x, x) * covariance(y, y));
}

/// What is left of y after its regression on t.
Series residual(const Series& y, const Series& t) {
  const double slope = covariance(y, t) / covariance(t, t);
  Series out;
  for (std::size_t i = 0; i < y.size(); ++i) out.push_back(y[i] - mean(y) - slope * (t[i] - mean(t)));
  return out;
}

/// Random series; with ties where `levels` is small.
class RankCorrelations : public testing::TestWithParam<int> {
 protected:
  Series series(std::size_t n) {
    std::uniform_int_distribution<int> value(0, GetParam());
    Series out(n);
    do {
      for (double& x : out) x = value(random_);
    } while (std::all_of(out.begin(), out.end(), [&](double x) { return x == out[0]; }));
    return out;
  }
  std::mt19937 random_{static_cast<unsigned>(dds::test::seed(7))};
};

TEST_P(RankCorrelations, EqualPearsonOfRanksByCounting) {
  for (std::size_t n = 6; n < 60; ++n) {
    const Series x = series(n), y = series(n);
    EXPECT_NEAR(*dds::spearman(x, y).rho, pearson(ranks(x), ranks(y)), 1e-12);
  }
}

TEST_P(RankCorrelations, PartialEqualsTheCorrelationOfRegressionResiduals) {
  int given = 0;
  for (std::size_t n = 8; n < 60; ++n) {
    const Series x = series(n), y = series(n), t = series(n);
    const auto partial = dds::partial_spearman(x, y, t);
    if (!partial.rho) continue;
    ++given;
    EXPECT_NEAR(*partial.rho, pearson(residual(ranks(x), ranks(t)), residual(ranks(y), ranks(t))), 1e-10);
  }
  EXPECT_GE(given, 50) << "of 52: none is given only where x or y has the order of t";
}

TEST_P(RankCorrelations, DoNotChangeUnderMonotoneMapsOrSwapsAndChangeSignUnderReversal) {
  for (std::size_t n = 6; n < 30; ++n) {
    const Series x = series(n), y = series(n), t = series(n);
    Series bent = x, negative = x;
    for (double& v : bent) v = std::exp(v / 1e6) - 3;
    for (double& v : negative) v = -v;
    const auto base = dds::spearman(x, y);
    EXPECT_EQ(dds::spearman(bent, y).rho, base.rho);
    EXPECT_EQ(dds::spearman(y, x).rho, base.rho);
    EXPECT_EQ(*dds::spearman(negative, y).rho, -*base.rho);
    EXPECT_EQ(dds::partial_spearman(bent, y, t).rho, dds::partial_spearman(x, y, t).rho);
    EXPECT_LE(*base.low, *base.rho);
    EXPECT_GE(*base.high, *base.rho);
    EXPECT_GE(*base.low, -1);
    EXPECT_LE(*base.high, 1);
  }
}

TEST_P(RankCorrelations, DoNotDependOnTheOrderOfThePairs) {
  Series x = series(20), y = series(20);
  const auto base = dds::spearman(x, y);
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (int round = 0; round < 20; ++round) {
    std::shuffle(order.begin(), order.end(), random_);
    Series px, py;
    for (const std::size_t i : order) px.push_back(x[i]), py.push_back(y[i]);
    EXPECT_EQ(dds::spearman(px, py).rho, base.rho);
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, RankCorrelations, testing::Values(2, 5, 1000000));

TEST(Spearman, OfPermutationsIsOneLessSixTimesTheSquaredDifferences) {
  Series x(7);
  std::iota(x.begin(), x.end(), 1.0);
  Series y = x;
  std::mt19937 random(static_cast<unsigned>(dds::test::seed(3)));
  for (int round = 0; round < 200; ++round) {
    std::shuffle(y.begin(), y.end(), random);
    double squares = 0;
    for (std::size_t i = 0; i < x.size(); ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
    EXPECT_NEAR(*dds::spearman(x, y).rho, 1 - 6 * squares / (7 * 48), 1e-14);
  }
}

TEST(Spearman, OfATextbookExample) {
  // IQ and hours of television of ten people: rho = -29/165.
  const Series iq = {86, 97, 99, 100, 101, 103, 106, 110, 112, 113};
  const Series hours = {2, 20, 28, 27, 50, 29, 7, 17, 6, 12};
  const auto c = dds::spearman(iq, hours);
  EXPECT_EQ(c.n, 10);
  EXPECT_NEAR(*c.rho, -29.0 / 165, 1e-14);
  const double half = 1.959963984540054 * std::sqrt((1 + *c.rho * *c.rho / 2) / 7);
  EXPECT_NEAR(*c.low, std::tanh(std::atanh(*c.rho) - half), 1e-12);
  EXPECT_NEAR(*c.high, std::tanh(std::atanh(*c.rho) + half), 1e-12);
  const auto wider = dds::spearman(iq, hours, 0.99);
  EXPECT_NEAR(std::atanh(*wider.high) - std::atanh(*wider.rho), half * 2.5758293035489004 / 1.959963984540054, 1e-12);
}

TEST(Spearman, OfOneOrderIsExactlyOneWithAnIntervalOfNoWidth) {
  const Series x = {1, 2, 2, 3, 5, 8, 13};
  Series y = x;
  for (double& v : y) v = v * v * v;
  const auto c = dds::spearman(x, y);
  EXPECT_EQ(c.rho, 1.0);
  EXPECT_EQ(c.low, 1.0);
  EXPECT_EQ(c.high, 1.0);
}

TEST(Spearman, IntervalHoldsTheTruthAboutAsOftenAsItSays) {
  std::mt19937 random(static_cast<unsigned>(dds::test::seed(11)));
  std::normal_distribution<double> normal;
  int inside = 0;
  constexpr int kRounds = 4000;  // the share is known to sqrt(0.95 0.05 / 4000), a sixth of the tolerance
  for (int round = 0; round < kRounds; ++round) {
    Series x(30), y(30);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = normal(random);
      y[i] = 0.6 * x[i] + 0.8 * normal(random);
    }
    const auto c = dds::spearman(x, y);
    const double truth = 6 / std::acos(-1.0) * std::asin(0.6 / 2);  // of a bivariate normal with correlation 0.6
    inside += *c.low <= truth && truth <= *c.high;
  }
  EXPECT_NEAR(inside / static_cast<double>(kRounds), 0.95, 0.02);
}

TEST(Spearman, IsNotGivenForFewPairsOrAConstantSeries) {
  const Series five = {1, 2, 3, 4, 5}, six = {1, 2, 3, 4, 5, 6}, constant(6, 2.5);
  EXPECT_FALSE(dds::spearman(five, five).rho);
  EXPECT_EQ(dds::spearman(five, five).n, 5);
  EXPECT_FALSE(dds::spearman(six, constant).rho);
  EXPECT_FALSE(dds::spearman(constant, six).low);
  EXPECT_FALSE(dds::spearman({}, {}).rho);
  EXPECT_TRUE(dds::spearman(six, six).rho);
}

TEST(PartialSpearman, IsNotGivenWhereTheTrendLeavesNothing) {
  const Series trend = {0, 10, 30, 100, 300, 800, 1500}, other = {3, 1, 4, 1, 5, 9, 2};
  Series falling = trend;
  for (double& v : falling) v = -v;
  EXPECT_FALSE(dds::partial_spearman(trend, other, trend).rho);
  EXPECT_FALSE(dds::partial_spearman(other, falling, trend).rho);
  EXPECT_FALSE(dds::partial_spearman(other, other, Series(7, 1.0)).rho);
  EXPECT_NEAR(*dds::partial_spearman(other, other, trend).rho, 1, 1e-12);
}

TEST(Spearman, RefusesWhatItCannotRank) {
  const Series six = {1, 2, 3, 4, 5, 6}, five = {1, 2, 3, 4, 5};
  Series nan = six, inf = six;
  nan[2] = std::numeric_limits<double>::quiet_NaN();
  inf[4] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(dds::spearman(six, five), dds::InvalidArgument);
  EXPECT_THROW(dds::spearman(nan, six), dds::InvalidArgument);
  EXPECT_THROW(dds::spearman(six, inf), dds::InvalidArgument);
  EXPECT_THROW(dds::partial_spearman(six, six, five), dds::InvalidArgument);
  EXPECT_THROW(dds::partial_spearman(six, six, nan), dds::InvalidArgument);
  for (const double confidence : {0.0, 1.0, -0.5, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(dds::spearman(six, six, confidence), dds::InvalidArgument);
  }
  try {
    dds::spearman(six, nan);
    FAIL();
  } catch (const dds::InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("y[2]"), std::string::npos) << error.what();
  }
}

}  // namespace
