// Learning coefficients against one another, against a formula found on another way, and against integrals that are
// computed. What an integral must show: Z(n) n^lambda is a polynomial in log n of degree m - 1, up to powers of 1/n.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/learning_coefficient.hpp>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "tests/seed.hpp"

namespace dds {
namespace {

using Widths = std::vector<std::int64_t>;

/// For widths up to 8: f(M, H, N, r), 1808 times.
void for_each_two_layer_network(const std::function<void(std::int64_t, std::int64_t, std::int64_t, std::int64_t)>& f) {
  std::int64_t cases = 0;
  for (std::int64_t m = 1; m <= 8; ++m) {
    for (std::int64_t h = 1; h <= 8; ++h) {
      for (std::int64_t n = 1; n <= 8; ++n) {
        for (std::int64_t r = 0; r <= std::min({m, h, n}); ++r, ++cases) f(m, h, n, r);
      }
    }
  }
  EXPECT_EQ(cases, 1808);
}

/// (r (H_0 + H_L) - r^2)/2 + (1/2) sum_{i = 1..min D} (1 - i + min_k floor((D_(0) + .. + D_(k) - i) / k)), D sorted:
/// a formula for lambda that shares nothing with the library's.
double by_floors(const Widths& widths, std::int64_t r) {
  Widths d = widths;
  for (std::int64_t& width : d) width -= r;
  std::sort(d.begin(), d.end());
  std::int64_t twice = r * (widths.front() + widths.back() - r);
  for (std::int64_t i = 1; i <= d[0]; ++i) {
    std::int64_t smallest = d[0] + d[1] - i;
    for (std::int64_t k = 1, sum = d[0]; k < std::ssize(d); ++k) {
      sum += d[static_cast<std::size_t>(k)];
      smallest = std::min(smallest, (sum - i) / k);
    }
    twice += 1 - i + smallest;
  }
  return static_cast<double>(twice) / 2;
}

/// Networks of 2 to 7 widths up to 30, many of them close to one another.
std::pair<Widths, std::int64_t> random_network(std::mt19937_64& engine) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  const std::int64_t low = pick(1, 24), high = low + pick(0, 6);
  Widths widths(static_cast<std::size_t>(pick(2, 7)));
  for (std::int64_t& width : widths) width = pick(low, high);
  return {widths, pick(0, *std::min_element(widths.begin(), widths.end()))};
}

/// Whether p(tau) e^(lambda tau) is a polynomial of degree m - 1 on equidistant taus: its m-th differences vanish and
/// its (m - 1)-th do not. `log_p` is log p.
void expect_asymptotics(const std::function<double(double)>& log_p, const LearningCoefficient& expected, double first,
                        double spacing, const std::string& name) {
  std::vector<double> values;
  for (std::int64_t i = 0; i <= expected.multiplicity; ++i) {
    const double tau = first + spacing * static_cast<double>(i);
    values.push_back(std::exp(log_p(tau) + expected.lambda * tau));
  }
  const double scale = *std::max_element(values.begin(), values.end());
  double last = 0;
  for (std::int64_t order = 1; order <= expected.multiplicity; ++order) {
    last = values.back();
    for (std::size_t i = 0; i + 1 < values.size(); ++i) values[i] = values[i + 1] - values[i];
    values.pop_back();
  }
  EXPECT_LT(std::abs(values.front()) / scale, 1e-4) << name;
  EXPECT_GT(std::abs(last) / scale, 1e-2) << name;
}

// ---- reduced-rank regression and deep linear networks ----

TEST(LearningCoefficient, TwoLayersFollowTheTableInEveryCase) {
  std::map<ReducedRankCase, std::int64_t> seen;
  for_each_two_layer_network([&](auto m, auto h, auto n, auto r) {
    const LearningCoefficient table = reduced_rank_coefficient(m, h, n, r);
    EXPECT_EQ(deep_linear_coefficient(Widths{m, h, n}, r), table) << m << ' ' << h << ' ' << n << ' ' << r;
    EXPECT_EQ(by_floors({m, h, n}, r), table.lambda) << m << ' ' << h << ' ' << n << ' ' << r;
    ++seen[reduced_rank_case(m, h, n, r)];
  });
  EXPECT_EQ(seen.size(), 4u);
}

TEST(LearningCoefficient, CasesDifferOnlyWhereTheyShould) {
  EXPECT_EQ(reduced_rank_case(10, 3, 5, 2), ReducedRankCase::WideInput);
  EXPECT_EQ(reduced_rank_case(5, 3, 10, 2), ReducedRankCase::WideOutput);
  EXPECT_EQ(reduced_rank_case(2, 8, 3, 1), ReducedRankCase::WideHidden);
  EXPECT_EQ(reduced_rank_case(4, 3, 4, 1), ReducedRankCase::Balanced);
  // The fourteen cells of the paper are all of case 3: lambda = (N H + (M - H) r) / 2.
  for (std::int64_t h = 2; h <= 5; ++h) {
    for (std::int64_t r = 1; r <= h; ++r) {
      const auto found = reduced_rank_coefficient(10, h, 5, r);
      EXPECT_EQ(found.lambda, static_cast<double>(5 * h + (10 - h) * r) / 2);
      EXPECT_EQ(found.multiplicity, 1);
    }
  }
}

TEST(LearningCoefficient, DeepNetworksFollowAnotherFormula) {
  std::mt19937_64 engine(test::seed(1));
  for (int i = 0; i < 20000; ++i) {
    const auto [widths, r] = random_network(engine);
    ASSERT_EQ(deep_linear_coefficient(widths, r).lambda, by_floors(widths, r)) << testing::PrintToString(widths) << r;
  }
}

TEST(LearningCoefficient, RankOfTheTruthOnlyShiftsTheWidths) {
  std::mt19937_64 engine(test::seed(2));
  int shifted = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto [widths, r] = random_network(engine);
    Widths rest = widths;
    for (std::int64_t& width : rest) width -= r;
    if (*std::min_element(rest.begin(), rest.end()) == 0) {
      // All that the narrowest layer lets through is used.
      EXPECT_EQ(deep_linear_coefficient(widths, r).lambda,
                static_cast<double>(r * (widths.front() + widths.back() - r)) / 2);
      continue;
    }
    const auto whole = deep_linear_coefficient(widths, r), reduced = deep_linear_coefficient(rest, 0);
    EXPECT_EQ(whole.lambda - reduced.lambda, static_cast<double>(r * (widths.front() + widths.back() - r)) / 2);
    EXPECT_EQ(whole.multiplicity, reduced.multiplicity);
    ++shifted;
  }
  EXPECT_GE(shifted, 1000);
}

TEST(LearningCoefficient, SymmetriesAndBounds) {
  std::mt19937_64 engine(test::seed(3));
  for (int i = 0; i < 2000; ++i) {
    const auto [widths, r] = random_network(engine);
    const auto found = deep_linear_coefficient(widths, r);
    Widths other = widths;
    std::reverse(other.begin(), other.end());
    EXPECT_EQ(deep_linear_coefficient(other, r), found);
    std::shuffle(other.begin() + 1, other.end() - 1, engine);
    EXPECT_EQ(deep_linear_coefficient(other, r), found) << "hidden layers in another order";

    EXPECT_LE(2 * found.lambda, static_cast<double>(widths.front() * widths.back())) << "the dimension of the product";
    EXPECT_GE(2 * found.lambda, static_cast<double>(r * (widths.front() + widths.back() - r))) << "matrices of rank r";
    for (std::size_t layer = 0; layer < widths.size(); ++layer) {
      Widths wider = widths;
      ++wider[layer];
      EXPECT_GE(deep_linear_coefficient(wider, r).lambda, found.lambda);
    }
    Widths deeper = widths;
    deeper.insert(deeper.begin() + 1, widths.front());
    EXPECT_LE(deep_linear_coefficient(deeper, r).lambda, found.lambda) << "another layer, which can be the identity";
  }
}

TEST(LearningCoefficient, OneLayerIsRegular) {
  for (const std::int64_t inputs : {1, 4, 9}) {
    for (const std::int64_t outputs : {1, 5}) {
      for (std::int64_t r = 0; r <= std::min(inputs, outputs); ++r) {
        EXPECT_EQ(deep_linear_coefficient(Widths{inputs, outputs}, r), regular_coefficient(inputs * outputs));
      }
    }
  }
}

/// With hidden layers of one unit and r = 0 the network is a product: |v|^2 w_2^2 .. |u|^2, in polar coordinates a
/// normal crossing.
TEST(LearningCoefficient, NetworksOfOneUnitAreNormalCrossings) {
  for (std::int64_t inputs = 1; inputs <= 8; ++inputs) {
    for (std::int64_t outputs = 1; outputs <= 8; ++outputs) {
      for (std::size_t hidden = 1; hidden <= 4; ++hidden) {
        Widths widths(hidden + 2, 1), k(hidden + 1, 1), h(hidden + 1, 0);
        widths.front() = inputs;
        widths.back() = outputs;
        h.front() = inputs - 1;
        h.back() = outputs - 1;
        EXPECT_EQ(deep_linear_coefficient(widths, 0), normal_crossing_coefficient(k, h));
      }
    }
  }
}

/// The integral over the weights of reduced-rank regression with r = 0 under a Gaussian prior, Z(n) = E exp(-n |B
/// A|^2/2). Given B (N x H) each column of A (M of them) gives prod_i (1 + n s_i^2)^(-1/2), s the singular values of B,
/// and those have the density prod_i s_i^|N - H| e^(-s_i^2/2) prod_{i<j} |s_i^2 - s_j^2|: for min(N, H) <= 2 a sum over
/// a grid.
double log_integral(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, double tau) {
  const double n = std::exp(tau), power = static_cast<double>(std::abs(outputs - hidden)),
               columns = static_cast<double>(inputs);
  double one = 0, weighted = 0, two = 0;  // sums over the s below of g, of g s^2, and over pairs
  constexpr double kStep = 0.02;
  for (double t = -(tau / 2 + 40); t < 2.5; t += kStep) {
    const double square = std::exp(2 * t);
    const double g = kStep * std::exp((power + 1) * t - square / 2 - columns / 2 * std::log1p(n * square));
    two += g * (square * one - weighted);
    one += g;
    weighted += g * square;
  }
  return std::log(std::min(outputs, hidden) == 1 ? one : two);
}

TEST(LearningCoefficient, ReducedRankRegressionFollowsItsIntegral) {
  std::set<ReducedRankCase> cases;
  std::set<std::int64_t> multiplicities;
  for (std::int64_t m = 1; m <= 7; ++m) {
    for (std::int64_t h = 1; h <= 6; ++h) {
      for (std::int64_t n = 1; n <= 6; ++n) {
        if (std::min(h, n) > 2) continue;
        const LearningCoefficient expected = reduced_rank_coefficient(m, h, n, 0);
        cases.insert(reduced_rank_case(m, h, n, 0));
        multiplicities.insert(expected.multiplicity);
        expect_asymptotics([&](double tau) { return log_integral(m, h, n, tau); }, expected, 30, 5,
                           testing::PrintToString(Widths{m, h, n}));
      }
    }
  }
  EXPECT_EQ(cases.size(), 4u);
  EXPECT_EQ(multiplicities.size(), 2u);
}

// ---- normal crossings ----

/// log of the volume of {prod w_i^(2 k_i) < e^(-tau)} in the unit cube under the density prod w_i^h_i, by a recursion
/// over the dimensions on a grid of tau.
class Volume {
 public:
  Volume(const Widths& k, const Widths& h) : values_(kPoints, 0.0) {
    values_[0] = 1;
    // Shares of tau in steps of kStep: the law of sum 2 k_i u_i, u_i = -log w_i of density (h_i + 1) e^(-(h_i + 1)
    // u_i). A geometric law on the grid has the tail of the exponential one exactly.
    for (std::size_t i = 0; i < k.size(); ++i) {
      const double decay = std::exp(-kStep * static_cast<double>(h[i] + 1) / static_cast<double>(2 * k[i]));
      for (std::size_t t = 0; t < kPoints; ++t)
        values_[t] = (1 - decay) * values_[t] + (t > 0 ? decay * values_[t - 1] : 0);
    }
  }
  double log_at(double tau) const {
    // The tail beyond tau, summed from the far end.
    double sum = 0;
    for (std::size_t t = kPoints - 1; t > static_cast<std::size_t>(std::lround(tau / kStep)); --t) sum += values_[t];
    return std::log(sum);
  }

 private:
  static constexpr double kStep = 0.05;
  static constexpr std::size_t kPoints = 12000;
  std::vector<double> values_;
};

TEST(LearningCoefficient, NormalCrossingsFollowTheirVolume) {
  std::set<std::int64_t> multiplicities;
  std::mt19937_64 engine(test::seed(4));
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  for (int i = 0; i < 60; ++i) {
    Widths k(static_cast<std::size_t>(pick(1, 4))), h(k.size());
    for (std::size_t j = 0; j < k.size(); ++j) {
      const bool repeat = j > 0 && i % 3 == 0;  // for multiplicities up to 4, which are rare by chance
      k[j] = repeat ? k[0] : pick(1, 3);
      h[j] = repeat ? h[0] : pick(0, 2);
    }
    const LearningCoefficient expected = normal_crossing_coefficient(k, h);
    multiplicities.insert(expected.multiplicity);
    const Volume volume(k, h);
    expect_asymptotics([&](double tau) { return volume.log_at(tau); }, expected, 250, 60,
                       testing::PrintToString(k) + testing::PrintToString(h));
  }
  EXPECT_GE(multiplicities.size(), 3u);
}

TEST(LearningCoefficient, NormalCrossingsKnownByHand) {
  EXPECT_EQ(normal_crossing_coefficient(Widths{1}), (LearningCoefficient{0.5, 1}));
  EXPECT_EQ(normal_crossing_coefficient(Widths{1, 1}), (LearningCoefficient{0.5, 2}));
  EXPECT_EQ(normal_crossing_coefficient(Widths{1, 2, 2}), (LearningCoefficient{0.25, 2}));
  EXPECT_EQ(normal_crossing_coefficient(Widths{0, 3}), (LearningCoefficient{1.0 / 6, 1})) << "w_1 does not matter";
  EXPECT_EQ(normal_crossing_coefficient(Widths{3, 1}, Widths{2, 0}), (LearningCoefficient{0.5, 2})) << "3/6 = 1/2";
  // Fractions that differ by less than a double can tell from their quotients still differ.
  const std::int64_t large = 1 << 20;
  EXPECT_EQ(normal_crossing_coefficient(Widths{large, large - 1}, Widths{large - 1, large - 2}).multiplicity, 2);
  EXPECT_EQ(normal_crossing_coefficient(Widths{large, large - 1}, Widths{large - 2, large - 3}).multiplicity, 1);
}

// ---- errors ----

TEST(LearningCoefficient, SaysWhatIsWrong) {
  const auto expect_error = [](const std::function<void()>& call, const std::string& part) {
    EXPECT_THAT(call, testing::ThrowsMessage<InvalidArgument>(testing::HasSubstr(part)));
  };
  expect_error([] { regular_coefficient(-1); }, "parameters is -1");
  expect_error([] { reduced_rank_coefficient(3, 0, 2, 0); }, "width 1 is 0");
  expect_error([] { reduced_rank_coefficient(3, 4, 2, 3); }, "rank is 3, expected 0 to the smallest width, which is 2");
  expect_error([] { reduced_rank_case(3, 4, 2, -1); }, "rank is -1");
  expect_error([] { deep_linear_coefficient(Widths{3}, 0); },
               "the number of widths is 1, expected at least 2 and at most 1001");
  expect_error([] { deep_linear_coefficient(Widths(1002, 1), 0); }, "the number of widths is 1002");
  expect_error([] { deep_linear_coefficient(Widths{3, (1 << 20) + 1}, 0); }, "width 1 is 1048577");
  expect_error([] { normal_crossing_coefficient(Widths{}); }, "every k is 0");
  expect_error([] { normal_crossing_coefficient(Widths{0, 0}); }, "every k is 0");
  expect_error(
      [] {
        normal_crossing_coefficient(Widths{1, 1}, Widths{0});
      },
      "the size of h is 1, expected 2, the size of k");
  expect_error([] { normal_crossing_coefficient(Widths{1, -2}); }, "k[1] is -2");
  expect_error([] { normal_crossing_coefficient(Widths{1}, Widths{-1}); }, "h[0] is -1");
}

TEST(LearningCoefficient, LargestNetworksStayExact) {
  const std::int64_t width = 1 << 20;
  for (const Widths& widths : {Widths(1001, 1000), Widths(30, width)}) {
    EXPECT_EQ(deep_linear_coefficient(widths, 0).lambda, by_floors(widths, 0));
  }
  EXPECT_EQ(deep_linear_coefficient(Widths{width, width}, width).lambda, std::ldexp(1.0, 39));
}

}  // namespace
}  // namespace dds
