// What the chains of an estimate cannot tell of themselves: rounding, and regions where they never were.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/llc.hpp>
#include <limits>

#include "src/model/random.hpp"
#include "tests/llc/landscapes.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

LlcOptions of_four_chains() { return LlcOptions().threads(1).seed(test::seed(31)).chains(4); }

void expect_said(const LlcEstimate& estimate, const std::string& part) {
  EXPECT_FALSE(estimate.converged());
  EXPECT_TRUE(test::fails_by(estimate, part)) << testing::PrintToString(estimate.failures);
}

// ---- rounding ----

/// Linear regression of 8 weights on noisy data, at its least squares.
struct NoisyLine {
  torch::nn::Linear model{torch::nn::LinearOptions(8, 1).bias(false)};
  Data data;

  NoisyLine() {
    auto g = generator_for(at::kCPU, test::seed(1), 0);
    const auto x = torch::randn({64, 8}, g), noise = torch::randn({64, 1}, g);
    const auto y = x.sum(1, true) + noise;
    const auto best =
        std::get<0>(torch::linalg_lstsq(x.to(torch::kDouble), y.to(torch::kDouble), c10::nullopt, c10::nullopt));
    const torch::NoGradGuard no_grad;
    model->weight.copy_(best.t());
    data = Data(x, y);
  }
};

TEST(LlcRounding, OfFp32AtALargeTemperatureIsMeasuredAndFp64IsRight) {
  NoisyLine problem;
  const auto settings = of_four_chains().n_beta(4.8e7).gamma(100).burn_in(500).draws(3000);
  const auto narrow = estimate_llc({*problem.model, gaussian(), problem.data}, settings);
  EXPECT_GT(*narrow.diagnostics.rounding, LlcBounds::kRounding * 4);
  expect_said(narrow, "rounding");
  EXPECT_TRUE(test::fails_by(narrow, "fp64"));
  EXPECT_LT(*narrow.low, 4);
  EXPECT_GT(*narrow.high, 4);

  const auto wide = estimate_llc({*problem.model, gaussian(), problem.data}, LlcOptions(settings).fp64(true));
  EXPECT_TRUE(wide.converged()) << wide.verdict();
  EXPECT_FALSE(wide.diagnostics.rounding);
  test::expect_near(*wide.lambda, 4, *wide.standard_error);
}

TEST(LlcRounding, IsNothingAtTheTemperatureOfMostEstimates) {
  NoisyLine problem;
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     of_four_chains().n_beta(1000).gamma(1).burn_in(500).draws(1500));
  EXPECT_LT(*estimate.diagnostics.rounding, 1e-3);
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
}

TEST(LlcRounding, IsUnknownOfAModelThatRunsInFp32Only) {
  NoisyLine problem;
  const Forward forward = [](torch::nn::Module& module, const std::vector<at::Tensor>& x) {
    return dynamic_cast<torch::nn::LinearImpl&>(module).forward(x[0].to(torch::kFloat)).mm(torch::ones({1, 1}));
  };
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data, forward},
                                     of_four_chains().n_beta(1000).gamma(1).burn_in(500).draws(1500));
  EXPECT_FALSE(estimate.diagnostics.rounding);
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
}

// ---- a loss that saturates ----

/// n beta K = 30 (1 - exp(-n beta |w - w*|^2 / 60)): a well of 10 weights in a plateau of height 30.
constexpr double kNBeta = 1000, kPlateau = 30;
constexpr int kWeights = 10;

test::Energy saturating() {
  return {torch::ones({kWeights}, torch::kDouble), [](const at::Tensor& w) {
            return (1 - (-kNBeta * (w - 1).square().sum() / (2 * kPlateau)).exp()) * kPlateau / kNBeta;
          }};
}

double stationary_lambda(double gamma) {
  const auto f = [](double r) { return kPlateau * (1 - std::exp(-kNBeta * r * r / (2 * kPlateau))); };
  const auto u = [&](double r) { return r > 0 ? f(r) + gamma / 2 * r * r - (kWeights - 1) * std::log(r) : INFINITY; };
  return test::mean_by_quadrature(f, u, 0, 6 * std::sqrt(kWeights / gamma));
}

TEST(LlcElsewhere, APlateauWhereNoChainWasIsFoundThoughAllChainsAgree) {
  const double gamma = 5.5;
  const double right = stationary_lambda(gamma);
  ASSERT_GT(right, 5.9);
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    const auto estimate =
        estimate_llc(saturating().problem(),
                     of_four_chains().seed(test::seed(seed)).n_beta(kNBeta).gamma(gamma).burn_in(500).draws(1500));
    EXPECT_LT(*estimate.lambda, right - 0.1);
    EXPECT_NEAR(*estimate.lambda + *estimate.diagnostics.elsewhere, right, 0.3);
    expect_said(estimate, "metastable");
    EXPECT_LT(*estimate.low, right);
    EXPECT_GT(*estimate.high, right);
  }
}

TEST(LlcElsewhere, AHigherGammaShutsThePlateauOff) {
  const double gamma = 30;
  const auto estimate =
      estimate_llc(saturating().problem(), of_four_chains().n_beta(kNBeta).gamma(gamma).burn_in(500).draws(1500));
  EXPECT_LT(*estimate.diagnostics.elsewhere, 0.02);
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
  test::expect_near(*estimate.lambda, stationary_lambda(gamma), *estimate.standard_error, 0.01);
}

TEST(LlcElsewhere, RegionsBeyondTheNeighbourhoodDoNotCount) {
  const auto estimate =
      estimate_llc(saturating().problem(),
                   of_four_chains().n_beta(kNBeta).gamma(5.5).burn_in(500).draws(1500).max_relative_distance(0.1));
  EXPECT_EQ(*estimate.diagnostics.elsewhere, 0);
}

TEST(LlcElsewhere, WhatTheChainsSeeIsNotElsewhere) {
  // Free, quartic and crossing directions: most draws of the localisation land where the chains are too.
  const test::Energy flat(torch::zeros({6}, torch::kDouble), [](const at::Tensor& w) {
    return 0.5 * w[0].square() + w[1].pow(4) + (w[2] * w[3]).square();
  });
  const auto estimate = estimate_llc(flat.problem(), of_four_chains().n_beta(200).gamma(1).burn_in(500).draws(1500));
  EXPECT_LT(*estimate.diagnostics.elsewhere, 1e-3);
}

}  // namespace
}  // namespace dds
