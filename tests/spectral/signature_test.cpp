#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/spectrum.hpp>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

/// A spectrum as read_spectrum would give it.
Spectrum spectrum_of(std::vector<double> sigma, std::int64_t rows, int exponent = 0) {
  Spectrum spectrum;
  spectrum.width = static_cast<std::int64_t>(sigma.size());
  spectrum.rows = spectrum.divisor = rows;
  spectrum.sigma = std::move(sigma);
  spectrum.exponent = exponent;
  return spectrum;
}

Signature numbers(const Spectrum& spectrum, c10::ScalarType dtype = torch::kDouble) {
  Signature signature;
  signature.structural_bound = spectrum.width;
  read_numbers(spectrum, dtype, signature);
  return signature;
}

TEST(Signature, HoldsTheTextbookNumbers) {
  const Signature s = numbers(spectrum_of({4, 2, 1}, 8));
  EXPECT_DOUBLE_EQ(*s.sigma_max, 4);
  EXPECT_DOUBLE_EQ(*s.sigma_min, 1);
  EXPECT_DOUBLE_EQ(*s.sigma_min_plus, 1);
  EXPECT_DOUBLE_EQ(*s.log10_lambda_min_plus, std::log10(1.0 / 8));
  EXPECT_DOUBLE_EQ(*s.log10_trace, std::log10(21.0 / 8));
  EXPECT_DOUBLE_EQ(*s.logdet_plus, std::log(16.0 / 8) + std::log(4.0 / 8) + std::log(1.0 / 8));
  EXPECT_DOUBLE_EQ(*s.condition, 4);
  EXPECT_DOUBLE_EQ(*s.stable_rank, 21.0 / 16);
  // Roy and Vetterli: exp of the entropy of (4, 2, 1)/7
  EXPECT_DOUBLE_EQ(*s.effective_rank,
                   std::exp(-(4. / 7 * std::log(4. / 7) + 2. / 7 * std::log(2. / 7) + 1. / 7 * std::log(1. / 7))));
  EXPECT_EQ(s.rank, 3);
  EXPECT_EQ(s.dead_directions, 0);
  EXPECT_EQ(s.at_floor, false);
  EXPECT_TRUE(s.status.empty());
}

TEST(Signature, AgreesWithTheLogDeterminantOfTheGramMatrix) {
  torch::manual_seed(test::seed(0));
  const at::Tensor rows = torch::randn({500, 6}, torch::kDouble);
  TriangularAccumulator accumulator(6);
  accumulator.update(rows);
  const Signature s = numbers(read_spectrum(accumulator));
  EXPECT_NEAR(*s.logdet_plus, torch::logdet(rows.t().mm(rows) / 500).item<double>(), 1e-12);
  EXPECT_NEAR(std::pow(10, *s.log10_trace), rows.pow(2).sum().item<double>() / 500, 1e-12);
}

class Shift : public testing::TestWithParam<int> {};

// M -> 2^k M: sigma by 2^k, log lambda by 2k log 2, log det+ by rank times that; ratios not at all. Beyond the range of
// double's squares too.
TEST_P(Shift, OfAllSingularValuesMovesTheLogarithmsOnly) {
  const int k = GetParam();
  const Signature a = numbers(spectrum_of({1, 0.5, 1e-3}, 10));
  const Signature b = numbers(spectrum_of({1, 0.5, 1e-3}, 10, k));
  EXPECT_DOUBLE_EQ(*b.sigma_min, std::ldexp(*a.sigma_min, k));
  EXPECT_NEAR(*b.log10_lambda_min_plus - *a.log10_lambda_min_plus, 2 * k * std::log10(2.0), 1e-9);
  EXPECT_NEAR(*b.logdet_plus - *a.logdet_plus, 3 * 2 * k * std::log(2.0), 1e-9);
  EXPECT_DOUBLE_EQ(*b.condition, *a.condition);
  EXPECT_DOUBLE_EQ(*b.effective_rank, *a.effective_rank);
  EXPECT_EQ(b.rank, a.rank);
}

INSTANTIATE_TEST_SUITE_P(Exponents, Shift, testing::Values(-900, -530, -1, 7, 530, 900));

class Planted : public testing::TestWithParam<std::int64_t> {};

TEST_P(Planted, DeadDirectionsAreCountedAndFound) {
  const std::int64_t dead = GetParam();
  torch::manual_seed(test::seed(dead));
  const at::Tensor axes = test::orthonormal(12, 12);  // the first `dead` columns are dead
  at::Tensor scale = torch::ones({12}, torch::kDouble);
  scale.slice(0, 0, dead).zero_();
  const at::Tensor rows = (torch::randn({400, 12}, torch::kDouble) * scale).mm(axes.t());
  TriangularAccumulator accumulator(12);
  accumulator.update(rows);
  const Spectrum spectrum = read_spectrum(accumulator, /*vectors=*/true);
  const Signature s = numbers(spectrum);
  EXPECT_EQ(s.rank, 12 - dead);
  EXPECT_EQ(s.dead_directions, dead);
  EXPECT_EQ(s.at_floor, dead > 0);
  EXPECT_GT(*s.sigma_min_plus, 1);
  const at::Tensor found = dead_axes(spectrum, s);
  ASSERT_EQ(found.size(0), dead);
  if (dead == 0) return;
  EXPECT_LT((found.mm(found.t()) - torch::eye(dead, torch::kDouble)).abs().max().item<double>(), 1e-13);
  EXPECT_LT(rows.mm(found.t()).abs().max().item<double>(), 1e-12);
  // The same subspace as planted: the projection of each found axis onto it has length one.
  const at::Tensor planted = axes.slice(1, 0, dead);
  EXPECT_LT((found.mm(planted).norm(2, 1) - 1).abs().max().item<double>(), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Counts, Planted, testing::Values(0, 1, 3, 11));

TEST(Signature, FewerRowsThanColumnsReadsTheSmallerSide) {
  torch::manual_seed(test::seed(0));
  TriangularAccumulator accumulator(20);
  accumulator.update(torch::randn({7, 20}, torch::kDouble));
  const Spectrum spectrum = read_spectrum(accumulator, true);
  const Signature s = numbers(spectrum);
  EXPECT_EQ(spectrum.sigma.size(), 7u);
  EXPECT_EQ(s.structural_bound, 7);
  EXPECT_EQ(s.rank, 7);
  EXPECT_EQ(s.dead_directions, 0);
  EXPECT_EQ(s.at_floor, false);
  EXPECT_EQ(dead_axes(spectrum, s).size(0), 13);  // no row has a component there
}

TEST(Signature, TheFloorFollowsTheTypeOfTheRows) {
  const std::vector<double> sigma{1, 1e-5, 1e-8};
  EXPECT_EQ(numbers(spectrum_of(sigma, 100), torch::kDouble).rank, 3);
  EXPECT_EQ(numbers(spectrum_of(sigma, 100), torch::kFloat).rank, 2);
  EXPECT_EQ(numbers(spectrum_of(sigma, 100), torch::kBFloat16).rank, 1);
  const Signature s = numbers(spectrum_of(sigma, 100), torch::kFloat);
  EXPECT_EQ(s.at_floor, true);
  EXPECT_DOUBLE_EQ(*s.sigma_min, 1e-8);  // still reported
  EXPECT_DOUBLE_EQ(*s.sigma_min_plus, 1e-5);
}

TEST(Signature, FloatRoundingOfARankDeficientMatrixStandsBelowTheFloatFloor) {
  for (const std::int64_t width : {4, 32, 200}) {
    torch::manual_seed(test::seed(width));
    const at::Tensor exact =
        torch::randn({3000, width / 2}, torch::kDouble).mm(torch::randn({width / 2, width}, torch::kDouble));
    TriangularAccumulator accumulator(width);
    accumulator.update(exact.to(torch::kFloat));
    const Signature s = numbers(read_spectrum(accumulator), torch::kFloat);
    EXPECT_EQ(s.rank, width / 2);
    EXPECT_EQ(s.dead_directions, width - width / 2);
  }
}

TEST(Signature, TheFixedRankVolumeDoesNotJumpWhereTheFloorCuts) {
  Signature above, below;
  above.structural_bound = below.structural_bound = 3;
  above.fixed_rank = below.fixed_rank = 3;
  const double floor = noise_floor(torch::kDouble, 100, 3, 1.0);
  read_numbers(spectrum_of({1, 0.1, floor * 1.01}, 100), torch::kDouble, above);
  read_numbers(spectrum_of({1, 0.1, floor * 0.99}, 100), torch::kDouble, below);
  EXPECT_EQ(above.rank, 3);
  EXPECT_EQ(below.rank, 2);
  EXPECT_GT(std::abs(*above.logdet_plus - *below.logdet_plus), 10);
  EXPECT_NEAR(*above.logdet_fixed_rank, *below.logdet_fixed_rank, 0.05);
}

TEST(Signature, ZeroRowsGiveAStatusAndNoInfinities) {
  TriangularAccumulator accumulator(4);
  accumulator.update(torch::zeros({900, 4}));
  Signature s;
  s.structural_bound = 4;
  s.fixed_rank = 2;
  read_numbers(read_spectrum(accumulator), torch::kFloat, s);
  EXPECT_EQ(to_string(s.status), "zero");
  EXPECT_EQ(s.rank, 0);
  EXPECT_EQ(s.dead_directions, 4);
  EXPECT_DOUBLE_EQ(*s.sigma_max, 0);
  for (const auto& empty : {s.sigma_min_plus, s.log10_lambda_min_plus, s.log10_trace, s.logdet_plus,
                            s.logdet_fixed_rank, s.condition, s.effective_rank, s.stable_rank}) {
    EXPECT_FALSE(empty.has_value());
  }
}

TEST(Signature, TextOfSidesAndStatuses) {
  for (const Side side : {Side::Activation, Side::Input, Side::Fisher})
    EXPECT_EQ(side_from_string(to_string(side)), side);
  EXPECT_THROW(side_from_string("left"), InvalidArgument);
  EXPECT_EQ(to_string(StatusSet()), "ok");
  EXPECT_EQ(to_string(StatusSet(Status::Coupled) | Status::Subsampled), "subsampled+coupled");
  EXPECT_TRUE(StatusSet(Status::NonFinite).no_numbers());
  EXPECT_FALSE(StatusSet(Status::Coupled).no_numbers());
  EXPECT_THROW(noise_floor(torch::kLong, 1, 1, 1), InvalidArgument);
}

}  // namespace
}  // namespace dds
