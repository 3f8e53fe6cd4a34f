// Counts of dying directions over many seeds of what a spectrum may do: right, open, or wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <dds/decay.hpp>
#include <dds/read.hpp>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "src/series/following.hpp"
#include "src/series/trend.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds::scenarios {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr std::int64_t kRows = 100;
constexpr double kFloor = 1e-14;
constexpr int kReadings = 40;

/// A log eigenvalue over t = 0 .. 1.
using Path = std::function<double(double)>;

Path falling(double start, double decades) {
  return [=](double t) { return start - decades * t; };
}

class Draws {
 public:
  explicit Draws(unsigned seed) : random_(static_cast<unsigned>(test::seed(seed))) {}
  double normal() { return std::normal_distribution<double>()(random_); }
  double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }
  /// A walk of standard deviation 1 over the run.
  Path walk(double start) {
    std::vector<double> y{start};
    while (y.size() < kReadings) y.push_back(y.back() + normal() / std::sqrt(kReadings));
    return [y](double t) { return y[static_cast<std::size_t>(std::lround(t * (kReadings - 1)))]; };
  }
  /// n that stand still, spread over these decades below 0.
  std::vector<Path> spread(int n, double decades) {
    std::vector<Path> paths;
    for (int i = 0; i < n; ++i) paths.push_back(falling(uniform(-decades, 0), 0));
    return paths;
  }

 private:
  std::mt19937 random_;
};

/// 20 that stand still close together, less what else there is.
std::vector<Path> narrow(std::vector<Path> others) {
  for (int i = static_cast<int>(std::ssize(others)); i < 20; ++i) others.push_back(falling(0.3 - 0.03 * i, 0));
  return others;
}

/// A reading of these log eigenvalues. `basis`, if defined, has the direction of each as a row.
Signature reading(std::int64_t step, const std::vector<double>& log10_lambda, const at::Tensor& basis = {}) {
  std::vector<std::int64_t> order(log10_lambda.size());
  std::iota(order.begin(), order.end(), 0);
  const auto value = [&](std::int64_t i) { return log10_lambda[static_cast<std::size_t>(i)]; };
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return value(a) > value(b); });
  Signature s;
  s.step = step;
  s.layer = "fc1";
  s.rows = kRows;
  s.width = s.structural_bound = std::ssize(log10_lambda);
  s.floor = kFloor;
  s.rank = 0;
  for (const std::int64_t i : order) {
    s.spectrum.push_back(std::sqrt(kRows * std::pow(10, value(i))));
    *s.rank += s.spectrum.back() > kFloor;
  }
  s.dead_directions = std::ssize(log10_lambda) - *s.rank;
  if (basis.defined()) s.axes = basis.index_select(0, torch::tensor(order));
  return s;
}

DecayCount count(const std::vector<Path>& paths, double noise, Draws& draws, const at::Tensor& basis = {}) {
  DecayCounter counter;
  for (int i = 0; i < kReadings; ++i) {
    std::vector<double> log10_lambda;
    for (const Path& path : paths)
      log10_lambda.push_back(path(static_cast<double>(i) / (kReadings - 1)) + noise * draws.normal());
    counter.add(reading(i, log10_lambda, basis));
  }
  return counter.counts().at(0);
}

struct Scenario {
  std::string name;
  std::int64_t dying;
  double noise;
  std::function<std::vector<Path>(Draws&)> paths;
  int least_right, most_wrong;  ///< of 20 seeds; a count that stays open is neither
};
void PrintTo(const Scenario& scenario, std::ostream* os) { *os << scenario.name; }

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  const auto add = [&](auto... fields) { all.push_back({fields...}); };
  for (const auto& [noise, name] : {std::pair(0.01, std::string()), {0.1, std::string("InMuchNoise")}}) {
    const bool little = noise < 0.05;
    const int most = little ? 18 : 13, none = 0;
    add(
        "NothingFalls" + name, 0L, noise, [](Draws&) { return narrow({}); }, little ? 20 : 8, 0);
    add(
        "One" + name, 1L, noise, [](Draws&) { return narrow({falling(-0.6, 3)}); }, most, 0);
    add(
        "Three" + name, 3L, noise,
        [](Draws&) {
          return narrow({falling(-0.6, 3), falling(-0.7, 3), falling(-0.8, 3)});
        },
        most, 0);
    add(
        "FourRates" + name, 4L, noise,
        [](Draws&) {
          return narrow({falling(-0.6, 2), falling(-0.7, 3), falling(-0.8, 4), falling(-0.9, 5)});
        },
        little ? 18 : 8, 0);
    add(
        "APowerLaw" + name, 1L, noise,
        [](Draws& draws) {
          const double c = draws.uniform(10, 100);
          return narrow({[=](double t) { return -0.5 - 2 * std::log10(1 + c * t); }});
        },
        little ? 18 : 6, 0);
    add(
        "ALateOnsetThatBends" + name, 1L, noise,
        [](Draws& draws) {
          const double onset = draws.uniform(0, 0.3), fall = draws.uniform(1, 4), bend = draws.uniform(0, 0.5);
          return narrow({[=](double t) {
            const double s = std::max(0.0, t - onset) / (1 - onset);
            return -0.5 - fall * (s + bend * s * s);
          }});
        },
        little ? 18 : 8, 0);
    // What is no fall.
    add(
        "AWalk" + name, 0L, noise, [](Draws& draws) { return narrow({draws.walk(-2)}); }, none, 2);
    add(
        "HalfASine" + name, 0L, noise,
        [](Draws& draws) {
          const double phase = draws.uniform(0, 2 * kPi);
          return narrow({[=](double t) { return -2 + std::sin(kPi * t + phase); }});
        },
        none, 5);
    add(
        "AFallThatComesBack" + name, 0L, noise,
        [](Draws&) { return narrow({[](double t) { return -0.6 - (t < 0.6 ? 5 * t : 3 - 5 * (t - 0.6)); }}); }, none,
        0);
    add(
        "ToTheFloorAndBack" + name, 0L, noise,
        [](Draws&) { return narrow({[](double t) { return -1 - (t < 0.7 ? 40 * t : 28 - 90 * (t - 0.7)); }}); }, none,
        0);
    add(
        "AWalkBesideTwo" + name, 2L, noise,
        [](Draws& draws) {
          return narrow({falling(-0.6, 3), falling(-0.7, 3), draws.walk(-1.2)});
        },
        none, 2);
    add(
        "OneThatFreezes" + name, 2L, noise,
        [](Draws&) {
          return narrow({falling(-0.6, 4), [](double t) { return -0.6 - std::min(4 * t, 1.0); }});
        },
        none, 0);
    // Inside a spectrum of 100 over four decades.
    add(
        "NothingInAWideSpectrum" + name, 0L, noise, [](Draws& draws) { return draws.spread(100, 4); }, little ? 20 : 0,
        1);
    for (const double decades : {2.0, 3.5}) {
      add(
          "InsideBy" + std::to_string(static_cast<int>(10 * decades)) + name, 1L, noise,
          [=](Draws& draws) {
            std::vector<Path> paths = draws.spread(99, 4);
            paths.push_back(falling(draws.uniform(-0.3, -0.2), decades));
            return paths;
          },
          little ? 18 : 0, little ? 0 : 5);
    }
  }
  add(
      "SlowBesideFast", 2L, 0.003,
      [](Draws&) {
        return narrow({falling(-0.6, 8), falling(-0.5, 0.09)});
      },
      0, 2);
  return all;
}

class Counts : public testing::TestWithParam<Scenario> {};

TEST_P(Counts, AreRightOrOpenAndTheirRangeHoldsTheTruth) {
  const Scenario& scenario = GetParam();
  int right = 0, wrong = 0, outside = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    Draws draws(100 + seed);
    const std::vector<Path> paths = scenario.paths(draws);
    const DecayCount c = count(paths, scenario.noise, draws);
    const bool nothing = c.status == DecayStatus::NoDecay;
    const bool told = nothing || c.count;
    const std::int64_t says = nothing ? 0 : c.count.value_or(0);
    right += told && says == scenario.dying;
    wrong += told && says != scenario.dying;
    outside += scenario.dying < c.low || scenario.dying > c.high;
  }
  EXPECT_GE(right, scenario.least_right);
  EXPECT_LE(wrong, scenario.most_wrong);
  EXPECT_LE(outside, scenario.most_wrong);
}

INSTANTIATE_TEST_SUITE_P(Over20Seeds, Counts, testing::ValuesIn(scenarios()),
                         [](const auto& info) { return info.param.name; });

// Series without noise, in which something stands exactly still or is near the floor, have a count or none: no error.
TEST(Series, OfExactNumbersAreMade) {
  for (const double floor_at : {0.0, 0.5}) {
    for (const int freezes : {3, 10, 20, 30}) {
      DecayCounter counter;
      for (int i = 0; i < kReadings; ++i) {
        const double fallen = 0.1 * std::min(i, freezes);
        Signature s = reading(i, {0, 0, -0.01 * i, -fallen, -1 - 2 * fallen});
        if (i < 3) s.floor = floor_at;  // the first readings are not clear of it
        counter.add(s);
      }
      const DecayCount c = counter.counts().at(0);
      EXPECT_LE(c.low, 3) << c.statement();
      EXPECT_FALSE(c.count.has_value() && *c.count > 3) << c.statement();
    }
  }
}

// In noise above the gaps the eigenvalues alone do not tell which of them falls. Their axes do.
TEST(Directions, AreFollowedByTheirAxesWhereTheEigenvaluesDoNotTellThem) {
  torch::manual_seed(test::seed(1));
  const at::Tensor basis = test::orthonormal(60, 60);
  int by_axes = 0, alone = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    for (const bool axes : {true, false}) {
      Draws draws(seed);
      std::vector<Path> paths = draws.spread(59, 4);
      paths.push_back(falling(-0.2, 3));
      const DecayCount c = count(paths, 0.1, draws, axes ? basis : at::Tensor());
      EXPECT_EQ(c.count.value_or(1), 1) << c.statement();
      (axes ? by_axes : alone) += c.count.has_value();
    }
  }
  EXPECT_GT(by_axes, alone + 4) << "of 20 each";
}

// The whole way: rows, factors, axes. One feature of 30 falls through the others.
TEST(Directions, OfAReadingAreItsRightSingularVectors) {
  torch::manual_seed(test::seed(2));
  constexpr std::int64_t d = 30;
  const at::Tensor rotation = test::orthonormal(d, d), rows = std::sqrt(200.0) * test::orthonormal(200, d);
  torch::nn::Linear net(torch::nn::LinearOptions(d, 2));
  net->to(torch::kDouble);
  at::Tensor scales = torch::logspace(0, -1.5, d, 10.0, torch::kDouble);
  DecayCounter counter;
  for (int i = 0; i < 20; ++i) {
    scales[1] = std::pow(10, -0.1 - 0.06 * i);
    const at::Tensor x = (rows * scales).mm(rotation);
    for (Signature& s :
         read({*net, gaussian(), Data(x)},
              ReadOptions().signatures(SignatureOptions().sides({Side::Input}).spectra(true).dead_axes(true)))) {
      ASSERT_EQ(s.axes.sizes(), (std::vector<std::int64_t>{d, d}));
      const at::Tensor cosines = s.axes.mm(rotation.t()).abs();
      const at::Tensor order = std::get<1>(scales.sort(-1, true));
      EXPECT_LT((cosines.index_select(1, order) - torch::eye(d, torch::kDouble)).abs().max().item<double>(), 1e-8);
      s.step = i;
      counter.add(s);
    }
  }
  EXPECT_EQ(counter.counts().at(0).count, 1) << counter.counts().at(0).statement();
}

TEST(Directions, AreMatchedByAngleAndTheOthersInOrder) {
  torch::manual_seed(test::seed(3));
  const at::Tensor before = test::orthonormal(6, 6);
  // Rows 0 and 5 change places, 3 turns by 0.5, and 1 and 2 turn by pi/4 among themselves.
  at::Tensor now = before.index_select(0, torch::tensor({5, 1, 2, 3, 4, 0}));
  const auto turn = [&](std::int64_t i, std::int64_t j, double angle) {
    const at::Tensor a = now[i].clone(), b = now[j].clone();
    now[i] = std::cos(angle) * a + std::sin(angle) * b;
    now[j] = std::cos(angle) * b - std::sin(angle) * a;
  };
  turn(3, 4, 0.5);
  turn(1, 2, kPi / 4);
  EXPECT_THAT(matched(before, -now), testing::ElementsAre(5, 1, 2, 3, 4, 0));
}

TEST(Directions, ThatPassOthersAreTakenOut) {
  Courses readings;
  const auto still = [](int j) { return -0.1 * j - 0.004 * j * j; };
  for (int i = 0; i < 20; ++i) {
    std::vector<double> y{-0.05 - 0.1 * i, -0.3 - 0.15 * i};
    for (int j = 0; j < 30; ++j) y.push_back(still(j));
    std::sort(y.rbegin(), y.rend());
    readings.push_back(y);
  }
  follow_movers(readings);
  for (int i = 0; i < 20; ++i) {
    const auto& y = readings[static_cast<std::size_t>(i)];
    EXPECT_NEAR(std::max(y[30], y[31]), -0.05 - 0.1 * i, 0.2) << i;
    EXPECT_NEAR(std::min(y[30], y[31]), -0.3 - 0.15 * i, 0.2) << i;
    for (int j = 0; j < 30; ++j) EXPECT_NEAR(y[static_cast<std::size_t>(j)], still(j), 0.35);
  }
}

TEST(Trend, NoiseIsThatOfTheSecondDifferencesAndOfNoSmoothCurve) {
  Draws draws(5);
  std::vector<double> smooth, noisy;
  for (int i = 0; i < 4000; ++i) {
    smooth.push_back(3 * std::sin(1e-3 * i));
    noisy.push_back(smooth.back() + 0.1 * draws.normal());
  }
  EXPECT_LT(noise_of(smooth), 1e-5);
  EXPECT_NEAR(noise_of(noisy), 0.1, 0.01);
  EXPECT_EQ(noise_of(std::vector<double>{1, 2}), 0);
}

TEST(Trend, SmoothFallsAreExplainedAndWavesAreNot) {
  std::vector<double> steps, logs;
  for (int i = 0; i < 60; ++i) {
    steps.push_back(i);
    logs.push_back(std::round(std::pow(10, 4.0 * i / 59)));
  }
  const auto left = [](const std::vector<double>& at, const Path& y) {
    std::vector<double> values;
    for (const double s : at) values.push_back(y(s / at.back()));
    return unexplained(at, values, values.front() - values.back());
  };
  for (const auto& at : {steps, logs}) {
    EXPECT_LT(left(at, falling(0, 2)), 1e-9);
    EXPECT_LT(left(at, [](double t) { return -t - t * t; }), 1e-9);
    EXPECT_LT(left(at, [](double t) { return -std::log10(1 + 50 * t); }), 0.012);
    EXPECT_LT(left(at, [](double t) { return std::exp(-3 * t); }), 0.012);
  }
  EXPECT_LT(left(steps, [](double t) { return -std::max(0.0, t - 0.3); }), 0.005);
  for (const double phase : {70.0, 90.0, 110.0}) {
    EXPECT_GT(left(steps, [&](double t) { return std::sin(kPi * (t + phase / 180)); }), 0.014) << phase;
  }
}

}  // namespace
}  // namespace dds::scenarios
