// The count of dying directions, on spectra whose number of them is known, and on those that must not be counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <dds/decay.hpp>
#include <functional>
#include <random>
#include <vector>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;

constexpr int kWidth = 20;
constexpr std::int64_t kRows = 100;
constexpr double kFloor = 1e-14;

/// A reading with these log10 eigenvalues, in any order.
Signature reading(std::int64_t step, std::vector<double> log10_lambda) {
  std::sort(log10_lambda.rbegin(), log10_lambda.rend());
  Signature s;
  s.step = step;
  s.layer = "fc1";
  s.side = Side::Fisher;
  s.source = Source::Read;
  s.fisher_kind = FisherKind::Exact;
  s.rows = kRows;
  s.width = s.structural_bound = std::ssize(log10_lambda);
  double trace = 0;
  std::int64_t rank = 0;
  for (const double l : log10_lambda) {
    trace += std::pow(10, l);
    s.spectrum.push_back(std::sqrt(kRows * std::pow(10, l)));
    rank += s.spectrum.back() > kFloor;
  }
  s.log10_trace = std::log10(trace);
  s.floor = kFloor;
  s.rank = rank;
  s.dead_directions = std::ssize(log10_lambda) - rank;
  return s;
}

/// Readings at t = 0 .. 1 of kWidth eigenvalues: `dying` of them as given, the others alive about 10^0 with noise.
DecayCount count(const std::vector<std::function<double(double)>>& dying, int n = 40, double noise = 0.01,
                 DecayOptions options = {}, unsigned seed = 3) {
  std::mt19937 random(static_cast<unsigned>(test::seed(seed)));
  std::normal_distribution<double> normal;
  DecayCounter counter(options);
  SeriesId series;
  for (int i = 0; i < n; ++i) {
    const double t = static_cast<double>(i) / (n - 1);
    std::vector<double> log10_lambda;
    for (const auto& path : dying) log10_lambda.push_back(path(t) + noise * normal(random));
    for (int j = std::ssize(dying); j < kWidth; ++j)
      log10_lambda.push_back(0.3 - 0.03 * static_cast<double>(j) + noise * normal(random));
    const Signature s = reading(i, log10_lambda);
    series = series_of(s);
    counter.add(s);
  }
  return counter.count(series);
}

std::function<double(double)> falling(double start, double decades) {
  return [=](double t) { return start - decades * t; };
}

class DyingDirections : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(R, DyingDirections, testing::Values(1, 2, 3, 4, 7));

TEST_P(DyingDirections, AreCountedAtOneRate) {
  const int r = GetParam();
  std::vector<std::function<double(double)>> dying;
  for (int j = 0; j < r; ++j) dying.push_back(falling(-0.6 - 0.1 * j, 3));
  const DecayCount c = count(dying);
  ASSERT_EQ(c.status, DecayStatus::Counted) << c.statement();
  EXPECT_EQ(c.count, r);
  EXPECT_EQ(c.low, r);
  EXPECT_EQ(c.high, r);
  ASSERT_EQ(c.groups.size(), 1u);
  EXPECT_EQ(c.groups[0].directions, r);
  EXPECT_NEAR(c.groups[0].rate, 1, 0.02);
  EXPECT_NEAR(*c.volume_ratio, r, 0.05 * r);
  EXPECT_NEAR(*c.decades, 3, 0.3);
  EXPECT_THAT(c.statement(), HasSubstr(std::to_string(r) + " of 20 directions die"));
}

TEST_P(DyingDirections, ThatComeFromAmongTheOthersAreCountedOnceTheyHavePassed) {
  std::vector<std::function<double(double)>> dying;
  for (int j = 0; j < GetParam(); ++j) dying.push_back(falling(1.2 + 0.1 * j, 6));
  const DecayCount c = count(dying, 80);
  EXPECT_EQ(c.count, GetParam()) << c.statement();
  EXPECT_GT(c.first_step, 0) << "all eigenvalues move at first";
}

TEST_P(DyingDirections, ThatSinkToTheFloorAreCounted) {
  std::vector<std::function<double(double)>> dying;
  for (int j = 0; j < GetParam(); ++j) dying.push_back(falling(-1, 40));
  const DecayCount c = count(dying, 60);
  EXPECT_EQ(c.count, GetParam()) << c.statement();
  EXPECT_EQ(c.sunk, GetParam());
}

TEST(Decay, RatesThatDifferAreGroupedAndTheRatioIsTheirSumOverTheLargest) {
  const DecayCount c = count({falling(-0.6, 2), falling(-0.7, 3), falling(-0.8, 4), falling(-0.9, 5)});
  ASSERT_EQ(c.count, 4) << c.statement();
  ASSERT_EQ(c.groups.size(), 4u);
  const double rates[] = {1, 0.8, 0.6, 0.4};
  for (int g = 0; g < 4; ++g) {
    EXPECT_NEAR(c.groups[g].rate, rates[g], 0.02);
    EXPECT_EQ(c.groups[g].directions, 1);
  }
  EXPECT_NEAR(*c.volume_ratio, 2.8, 0.03);
}

// ---- what must not be counted wrongly ----

TEST(Decay, OneThatFrozeOnTheWayLeavesTheCountOpen) {
  for (const double frozen : {0.3, 0.6, 1.0, 2.0}) {  // decades that it fell before
    const DecayCount c = count({falling(-0.6, 4), [=](double t) { return -0.6 - std::min(4 * t, frozen); }}, 60, 0.005);
    EXPECT_EQ(c.status, DecayStatus::Undecided) << frozen << ": " << c.statement();
    EXPECT_FALSE(c.count);
    EXPECT_LE(c.low, 2);
    EXPECT_GE(c.high, 2);
    EXPECT_THAT(c.statement(), HasSubstr("no count"));
  }
}

TEST(Decay, AMatrixThatDiesAsAWholeIsNotCountedUnlessRelativeToItsTrace) {
  const auto whole = [](DecayOptions options) {
    DecayCounter counter(options);
    for (int i = 0; i < 30; ++i) {
      std::vector<double> log10_lambda(kWidth);
      for (int j = 0; j < kWidth; ++j) log10_lambda[j] = -0.01 * j - 0.1 * i - (j >= 17 ? 1 + 0.1 * i : 0);
      counter.add(reading(i, log10_lambda));
    }
    return counter.counts().at(0);
  };
  EXPECT_EQ(whole({}).status, DecayStatus::MatrixDecays);
  EXPECT_FALSE(whole({}).count);
  EXPECT_EQ(whole(DecayOptions().relative(true)).count, 3);
}

TEST(Decay, WhereNothingFallsNothingIsCounted) {
  const DecayCount c = count({});
  EXPECT_EQ(c.status, DecayStatus::NoDecay);
  EXPECT_THAT(c.statement(), HasSubstr("nothing dies"));
  EXPECT_EQ(count({falling(-0.6, 0.3)}).status, DecayStatus::Undecided) << "a fall that is too short";
  EXPECT_EQ(count({falling(-0.6, 3)}, 5).status, DecayStatus::TooFewReadings);
}

/// Random walks, noise and late onsets: whatever is counted has to be right.
TEST(Decay, NoCountIsConfidentAndWrong) {
  int counted = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(static_cast<unsigned>(test::seed(seed)));
    std::uniform_real_distribution<double> uniform;
    const int r = static_cast<int>(seed % 4);
    std::vector<std::function<double(double)>> dying;
    for (int j = 0; j < r; ++j) {
      const double onset = 0.3 * uniform(random), decades = 1 + 3 * uniform(random), bend = 0.5 * uniform(random);
      dying.push_back([=](double t) {
        const double s = std::max(0.0, t - onset) / (1 - onset);
        return -0.5 - decades * (s + bend * s * s);
      });
    }
    const DecayCount c = count(dying, 30 + static_cast<int>(seed), 0.02, {}, seed);
    if (c.count) {
      EXPECT_EQ(*c.count, r) << seed << ": " << c.statement();
    }
    EXPECT_LE(c.low, r) << seed;
    EXPECT_GE(c.high, c.status == DecayStatus::NoDecay ? 0 : r) << seed;
    counted += c.count.has_value();
  }
  EXPECT_GE(counted, 20) << "abstaining is no way to be right";
}

// ---- which readings ----

TEST(Decay, DirectionsThatAreDeadFromTheStartAreNotAmongThem) {
  DecayCounter counter;
  for (int i = 0; i < 20; ++i) {
    std::vector<double> log10_lambda(kWidth, 0.0);
    log10_lambda[0] = -40;  // below the floor
    log10_lambda[1] = -0.5 - 0.1 * i;
    counter.add(reading(i, log10_lambda));
  }
  const DecayCount c = counter.counts().at(0);
  EXPECT_EQ(c.fixed_rank, kWidth - 1);
  EXPECT_EQ(c.dead_before, 1);
  EXPECT_EQ(c.count, 1);
}

TEST(Decay, ALongSeriesIsThinnedAndCountsTheSame) {
  const auto dying = {falling(-0.6, 3), falling(-0.7, 3)};
  const DecayCount all = count(dying, 400), thinned = count(dying, 5000);
  EXPECT_EQ(all.readings, 400);
  EXPECT_LE(thinned.readings, static_cast<std::int64_t>(kMaxDecayReadings));
  EXPECT_GE(thinned.readings, static_cast<std::int64_t>(kMaxDecayReadings) / 2);
  EXPECT_EQ(thinned.first_step, 0);
  EXPECT_EQ(thinned.last_step, 4999);
  EXPECT_EQ(all.count, 2);
  EXPECT_EQ(thinned.count, 2);
}

TEST(Decay, StepsThatAResumeRepeatsCountOnceAndStepsOutsideAreLeftOut) {
  DecayCounter counter(DecayOptions().first_step(5).last_step(30));
  const auto add = [&](std::int64_t step, double slope) {
    std::vector<double> log10_lambda(kWidth, 0.0);
    log10_lambda[3] = -0.5 - slope * static_cast<double>(step);
    counter.add(reading(step, log10_lambda));
  };
  for (int step = 0; step < 20; ++step) add(step, step < 12 ? 0.1 : 0.0);
  for (int step = 12; step < 40; ++step) add(step, 0.1);
  const DecayCount c = counter.counts().at(0);
  EXPECT_EQ(c.first_step, 5);
  EXPECT_EQ(c.last_step, 30);
  EXPECT_EQ(c.readings, 26);
  EXPECT_EQ(c.count, 1);
}

TEST(Decay, SeriesAreNeverMixed) {
  DecayCounter counter;
  for (int i = 0; i < 10; ++i) {
    Signature s = reading(i, std::vector<double>(kWidth, 0.0));
    counter.add(s);
    s.fisher_kind = FisherKind::Empirical;
    s.spectrum.back() *= std::pow(0.5, i);
    counter.add(s);
    s.source = Source::Step;
    s.spectrum.clear();  // logged without
    counter.add(s);
  }
  const auto counts = counter.counts();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].series.fisher_kind, FisherKind::Empirical);
  EXPECT_EQ(counts[0].count, 1);
  EXPECT_EQ(counts[1].status, DecayStatus::NoDecay);
  EXPECT_EQ(counter.count(SeriesId()).status, DecayStatus::TooFewReadings);
  EXPECT_EQ(to_string(counts[0].series), "fc1, fisher side (read, empirical)");
}

TEST(Decay, OptionsOutOfRangeAreNamed) {
  const auto message = [](DecayOptions options) { return message_of([&] { DecayCounter{options}; }); };
  EXPECT_THAT(message(DecayOptions().confidence(1)), HasSubstr("confidence is 1"));
  EXPECT_THAT(message(DecayOptions().least_rate(0)), HasSubstr("least_rate is 0"));
  EXPECT_THAT(message(DecayOptions().least_decades(-1)), HasSubstr("least_decades is -1"));
  EXPECT_THAT(message(DecayOptions().still_decades(0)), HasSubstr("still_decades is 0"));
  EXPECT_THAT(message(DecayOptions().first_step(3).last_step(2)), HasSubstr("first_step is 3"));
}

}  // namespace
}  // namespace dds
