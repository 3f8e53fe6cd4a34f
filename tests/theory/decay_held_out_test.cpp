// Counts of dying directions in series that no constant of the count was chosen on: other shapes, widths, lengths,
// noises and seeds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <dds/decay.hpp>
#include <functional>
#include <random>
#include <vector>

#include "src/series/following.hpp"
#include "src/series/trend.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds::held_out {
namespace {

using Path = std::function<double(double)>;  ///< a log eigenvalue over t = 0 .. 1

struct Random {
  std::mt19937 generator;
  explicit Random(unsigned seed) : generator(static_cast<unsigned>(test::seed(seed))) {}
  double normal() { return std::normal_distribution<double>()(generator); }
  double uniform() { return std::uniform_real_distribution<double>()(generator); }
};

/// k that stand still, evenly from `top` down by `decades`.
std::vector<Path> ladder(int k, double top, double decades) {
  std::vector<Path> paths;
  for (int j = 0; j < k; ++j) paths.emplace_back([=](double) { return top - decades * j / (k - 1); });
  return paths;
}

std::vector<Path> joined(std::vector<Path> a, const std::vector<Path>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The same, each less `drop`.
std::vector<Path> less(std::vector<Path> paths, const Path& drop) {
  for (Path& path : paths) path = [path, drop](double t) { return path(t) - drop(t); };
  return paths;
}

Path walk(Random& random, int readings, double start, double deviation) {
  std::vector<double> y{start};
  while (std::ssize(y) < readings) y.push_back(y.back() + deviation * random.normal() / std::sqrt(readings));
  return [y](double t) { return y[static_cast<std::size_t>(std::lround(t * static_cast<double>(y.size() - 1)))]; };
}

DecayCount count(const std::vector<Path>& paths, int readings, double noise, Random& random) {
  DecayCounter counter;
  for (int i = 0; i < readings; ++i) {
    Signature s;
    s.step = 50 * i;
    s.rows = 400;
    s.layer = "fc1";
    s.floor = 1e-13;
    for (const Path& path : paths) {
      const double y = path(static_cast<double>(i) / (readings - 1)) + noise * random.normal();
      s.spectrum.push_back(std::sqrt(400 * std::pow(10, y)));
    }
    std::sort(s.spectrum.rbegin(), s.spectrum.rend());
    s.rank = std::ssize(paths);
    counter.add(s);
  }
  return counter.counts().at(0);
}

struct Scenario {
  std::string name;
  std::int64_t dying;
  int least_right;  ///< of 100: what stays open is neither right nor wrong
  std::function<std::vector<Path>(Random&, int readings)> paths;
};
void PrintTo(const Scenario& scenario, std::ostream* os) { *os << scenario.name; }

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  const auto add = [&](auto... fields) { all.push_back({fields...}); };
  add("Relaxations", 2L, 85, [](Random& random, int) {
    std::vector<Path> dying;
    for (int j = 0; j < 2; ++j) {
      const double decades = 1.5 + 2 * random.uniform();
      dying.emplace_back([=](double t) { return -0.9 - 0.15 * j - decades * (1 - std::exp(-1.5 * t)); });
    }
    return joined(ladder(28, 0.2, 0.8), dying);
  });
  add("Parabolas", 3L, 85, [](Random& random, int) {
    std::vector<Path> dying;
    for (int j = 0; j < 3; ++j) {
      const double decades = 1 + 2 * random.uniform();
      dying.emplace_back([=](double t) { return -0.8 - 0.1 * j - decades * (0.4 * t + 0.6 * t * t); });
    }
    return joined(ladder(9, 0, 0.6), dying);
  });
  add("OthersDriftAway", 2L, 85, [](Random& random, int) {
    std::vector<Path> paths;
    for (const Path& path : ladder(18, 0, 1.2)) {
      const double drift = std::clamp(0.04 * random.normal(), -0.08, 0.08);
      paths.emplace_back([=](double t) { return path(t) + drift * t; });
    }
    return joined(paths, {[](double t) { return -1.5 - 4 * t; }, [](double t) { return -1.7 - 4 * t; }});
  });
  add("HiddenByARise", 1L, 85, [](Random& random, int) {
    const double start = -0.9 - 0.3 * random.uniform();
    return joined(ladder(18, 0, 0.8),
                  {[=](double t) { return start - 3 * t; }, [=](double t) { return start - 3 + 3 * t; }});
  });
  add("CrossedByARise", 1L, 85, [](Random&, int) {
    return joined(ladder(18, 0, 0.8), {[](double t) { return -1.2 - 2 * t; }, [](double t) { return -2.6 + t; }});
  });
  add("GrowthThroughOthers", 0L, 85, [](Random&, int) {
    std::vector<Path> growing;
    for (int j = 0; j < 3; ++j) growing.emplace_back([=](double t) { return -2.5 - 0.2 * j + 2 * t; });
    return joined(ladder(17, 0, 1.5), growing);
  });
  // What is no fall of a direction: the range of the count must hold 0.
  add("AChangeOfScale", 0L, 0,
      [](Random&, int) { return less(ladder(20, 0, 2), [](double t) { return t > 0.5 ? 1.0 : 0.0; }); });
  add("TwoChangesOfScale", 0L, 0,
      [](Random&, int) { return less(ladder(16, 0, 1), [](double t) { return 0.6 * (t > 0.3) + 0.5 * (t > 0.8); }); });
  add("AllWanderTogether", 0L, 0,
      [](Random& random, int readings) { return less(ladder(20, 0, 2), walk(random, readings, 0, 1.5)); });
  add("OneWandersFar", 0L, 0,
      [](Random& random, int readings) { return joined(ladder(15, 0, 0.6), {walk(random, readings, -2.5, 2)}); });
  add("TwoWander", 0L, 0, [](Random& random, int readings) {
    return joined(ladder(15, 0, 0.6), {walk(random, readings, -2, 1), walk(random, readings, -2.4, 1)});
  });
  add("ASineOfThreeHalves", 0L, 0, [](Random& random, int) {
    const double phase = 6.283 * random.uniform();
    return joined(ladder(15, 0, 0.6), {[=](double t) { return -2.2 + 0.8 * std::sin(9.425 * t + phase); }});
  });
  add("OneOfTwoFreezes", 2L, 0, [](Random&, int) {
    return joined(ladder(18, 0, 0.8),
                  {[](double t) { return -1 - 3 * t; }, [](double t) { return -1.1 - std::min(3 * t, 1.5); }});
  });
  return all;
}

class HeldOut : public testing::TestWithParam<Scenario> {};

TEST_P(HeldOut, SeriesAreRightOrOpenAndTheirRangeHoldsTheTruth) {
  const Scenario& scenario = GetParam();
  int right = 0, wrong = 0, outside = 0, series = 0;
  for (const double noise : {0.005, 0.03}) {
    for (const int readings : {25, 90}) {
      for (unsigned seed = 0; seed < 5; ++seed) {
        Random random(7000 + 31 * seed);
        const DecayCount c = count(scenario.paths(random, readings), readings, noise, random);
        const bool nothing = c.status == DecayStatus::NoDecay;
        const bool told = nothing || c.count;
        const std::int64_t says = c.count.value_or(0);
        right += told && says == scenario.dying;
        wrong += told && says != scenario.dying;
        outside += scenario.dying < c.low || scenario.dying > c.high;
        ++series;
      }
    }
  }
  EXPECT_GE(100 * right, scenario.least_right * series);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(outside, 0);
}

INSTANTIATE_TEST_SUITE_P(Over20Series, HeldOut, testing::ValuesIn(scenarios()),
                         [](const auto& info) { return info.param.name; });

// A sweep of few readings with jitter that is no white noise: what hardly ever rises, falls.
TEST(FewReadings, ThatHardlyEverRiseAreAFall) {
  int counted = 0, wandering = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    Random random(300 + seed);
    std::vector<double> y{-0.5};
    while (y.size() < 13) y.push_back(y.back() - 0.13 * random.uniform());
    const auto fall = [&](double t) { return y[static_cast<std::size_t>(std::lround(12 * t))]; };
    const DecayCount c = count(joined(ladder(15, 0.3, 0.5), {fall}), 13, 0, random);
    counted += c.count == 1;
    const DecayCount w = count(joined(ladder(15, 0.3, 0.5), {walk(random, 13, -1, 0.8)}), 13, 0, random);
    wandering += w.count.has_value();
  }
  EXPECT_GE(counted, 20) << "of 40";
  EXPECT_LE(wandering, 1) << "of 40";
}

TEST(FewReadings, AreJudgedByTheSignsOfTheirSteps) {
  EXPECT_TRUE(rarely_rises(std::vector<double>{0, -1, -2, -3, -4, -5, -6, -7, -8}));
  EXPECT_TRUE(rarely_rises(std::vector<double>{0, -1, -2, -2, -3, -4, -5, -5.001, -6, -7, -8})) << "ties are no steps";
  EXPECT_FALSE(rarely_rises(std::vector<double>{0, -1, -2, -3, -2, -4, -5, -6, -7})) << "one of eight rises";
  EXPECT_FALSE(rarely_rises(std::vector<double>{0, -1, -2, -3, -4, -5})) << "a walk does so once in 32 times";
}

TEST(Crossings, GiveBackWhatPlacesExchange) {
  Courses readings;
  for (int i = 0; i < 30; ++i) {
    const double falls = -0.1 * i, rises = -2.9 + 0.1 * i;
    readings.push_back({1.0, std::max(falls, rises), std::min(falls, rises)});
  }
  ASSERT_TRUE(uncross(readings));
  for (int i = 0; i < 30; ++i) {
    EXPECT_THAT(readings[static_cast<std::size_t>(i)], testing::ElementsAre(1.0, -0.1 * i, -2.9 + 0.1 * i)) << i;
  }
  // Two that come near and part again do not cross.
  Courses apart;
  for (int i = 0; i < 30; ++i) apart.push_back({0.1 + 0.003 * (i - 15) * (i - 15), 0.0});
  EXPECT_FALSE(uncross(apart));
}

TEST(Trend, OnlyWhatNeverFallsRises) {
  std::vector<double> rises, hump;
  for (int i = 0; i < 20; ++i) {
    rises.push_back(0.1 * i);
    hump.push_back(i < 15 ? 0.1 * i : 1.5 - 0.1 * (i - 15));
  }
  EXPECT_TRUE(only_rises(rises, 0.1));
  EXPECT_FALSE(only_rises(hump, 0.1));
}

}  // namespace
}  // namespace dds::held_out
