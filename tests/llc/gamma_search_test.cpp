// Gamma and the step that are found: at singular points against closed forms, and in any unit of weights and loss.
#include "src/llc/gamma_search.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/llc.hpp>
#include <functional>
#include <limits>

#include "src/llc/step_rule.hpp"
#include "src/model/random.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

using Function = std::function<torch::Tensor(const torch::Tensor& w)>;

/// f(w) around w* = 0, with L = f^2/2.
struct FunctionOfWeightsImpl : torch::nn::Cloneable<FunctionOfWeightsImpl> {
  FunctionOfWeightsImpl(std::int64_t weights, Function f) : weights(weights), f(std::move(f)) { reset(); }
  void reset() override { w = register_parameter("w", torch::zeros({weights}, torch::kDouble)); }
  torch::Tensor forward(torch::Tensor x) { return x * f(w); }
  std::int64_t weights;
  Function f;
  torch::Tensor w;
};
TORCH_MODULE(FunctionOfWeights);

LlcEstimate estimate_of(std::int64_t weights, const Function& f, const LlcOptions& options) {
  FunctionOfWeights model(weights, f);
  const Data data(torch::ones({2, 1}, torch::kDouble), torch::zeros({2, 1}, torch::kDouble));
  return estimate_llc({*model, gaussian(), data}, options);
}

LlcOptions quick(std::uint64_t seed) {
  return LlcOptions().threads(1).seed(test::seed(seed)).n_beta(1e4 / std::log(1e4)).target_error(0.03);
}

void expect_converged_around(const LlcEstimate& estimate, double lambda) {
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
  ASSERT_TRUE(estimate.lambda && estimate.low && estimate.high);
  // Four errors rather than the two of the interval.
  EXPECT_NEAR(*estimate.lambda, lambda, *estimate.high - *estimate.low);
  EXPECT_LT(*estimate.high - *estimate.low, 0.25 * lambda);
}

/// A function whose learning coefficient is known. Its multiplicity is 1.
struct Point {
  std::string name;
  std::int64_t weights;
  Function f;
  double lambda;
};
void PrintTo(const Point& point, std::ostream* out) { *out << point.name; }

class SingularPoint : public testing::TestWithParam<Point> {};

TEST_P(SingularPoint, IsFoundWithoutASetting) {
  const Point& point = GetParam();
  expect_converged_around(estimate_of(point.weights, point.f, quick(1)), point.lambda);
}

INSTANTIATE_TEST_SUITE_P(Functions, SingularPoint,
                         testing::Values(Point{"quartic", 1, [](const torch::Tensor& w) { return w.square(); },
                                               1.0 / 4},
                                         Point{"sextic", 1, [](const torch::Tensor& w) { return w.pow(3); }, 1.0 / 6},
                                         Point{"quartic_in_small_units", 1,
                                               [](const torch::Tensor& w) { return (1e-4 * w).square(); }, 1.0 / 4},
                                         Point{"quartic_in_large_units", 1,
                                               [](const torch::Tensor& w) { return (1e4 * w).square(); }, 1.0 / 4}),
                         [](const auto& info) { return info.param.name; });

TEST(GammaSearchNoise, AQuarticTakesNoTinySteps) {
  const auto estimate = estimate_of(
      1, [](const torch::Tensor& w) { return w.square(); }, quick(1));
  // Var w = sqrt(2 / n beta) Gamma(3/4) / Gamma(1/4), and a step moves by sqrt(eps).
  const double variance = std::sqrt(2 / estimate.settings.n_beta) * std::tgamma(0.75) / std::tgamma(0.25);
  EXPECT_GT(estimate.settings.step_size, 0.2 * variance);
  // The draws are worth something: at the step of the longest leap of a pilot it took 50 for one.
  EXPECT_GT(*estimate.diagnostics.ess, 0.05 * double(estimate.settings.draws * estimate.settings.chains));
}

/// Linear regression with d weights: lambda = d/2 for one output.
struct Regression {
  torch::nn::Linear model{nullptr};
  Data data;

  /// Inputs of size `unit`, residuals of size `noise`, the least squares of targets around weights of size `length`.
  Regression(double unit, double noise, double length, std::int64_t outputs = 1) {
    const std::int64_t n = 500, d = 5;
    auto g = generator_for(at::kCPU, test::seed(3), 0);
    model = torch::nn::Linear(torch::nn::LinearOptions(d, outputs).bias(false));
    model->to(torch::kDouble);
    const auto x = std::get<0>(torch::linalg_qr(torch::randn({n, d}, g, torch::kDouble))) * std::sqrt(double(n));
    auto residual = torch::randn({n, outputs}, g, torch::kDouble) * noise;
    residual -= x.mm(x.t().mm(residual)) / double(n);
    const torch::NoGradGuard no_grad;
    model->weight.fill_(length);
    const auto y = model->forward(x) + residual;
    model->weight.div_(unit);
    data = Data(x * unit, y);
  }

  LlcEstimate estimate(LikelihoodPtr likelihood, const LlcOptions& options) {
    return estimate_llc({*model, std::move(likelihood), data}, options);
  }
};

LlcOptions loose() { return LlcOptions().threads(1).seed(test::seed(5)).target_error(0.03); }

TEST(LlcUnits, OfTheWeightsChangeNothingButGamma) {
  const auto plain = Regression(1, 1, 1).estimate(gaussian(), loose());
  expect_converged_around(plain, 2.5);
  for (const double unit : {0x1p-20, 0x1p-10, 0x1p14}) {
    SCOPED_TRACE(unit);
    const auto scaled = Regression(unit, 1, 1).estimate(gaussian(), loose());
    // The same chain: powers of two round nothing, but for the logarithm of the step.
    EXPECT_NEAR(*scaled.lambda, *plain.lambda, 1e-6 * *plain.lambda);
    EXPECT_EQ(scaled.settings.gamma, plain.settings.gamma * unit * unit);
    EXPECT_NEAR(scaled.settings.step_size * unit * unit / plain.settings.step_size, 1, 1e-6);
    EXPECT_EQ(scaled.verdict(), plain.verdict());
  }
}

TEST(LlcUnits, OfTheLossAndALengthNearZeroAreNoReasonToRefuse) {
  const auto share = [](double factor) {
    return likelihood(
        "share", [=](const at::Tensor& f, const at::Tensor& y) { return (f - y).square().sum(1) * (0.5 * factor); });
  };
  expect_converged_around(Regression(1, 1, 1).estimate(gaussian(100), loose()), 2.5);
  expect_converged_around(Regression(1, 1, 1).estimate(share(1e4), loose()), 2.5);
  expect_converged_around(Regression(1, 1, 1, 30).estimate(share(1.0 / 30), loose()), 75);
  expect_converged_around(Regression(1, 1, 1e-9).estimate(gaussian(), loose()), 2.5);
  expect_converged_around(Regression(1, 1e-6, 1e-6).estimate(gaussian(1e-6), loose()), 2.5);
}

TEST(LlcUnits, SmallBatchesConverge) {
  expect_converged_around(Regression(1, 1, 1).estimate(gaussian(), loose().batch_size(32).target_error(0.04)), 2.5);
}

TEST(LlcUnits, TwoOrThreeSamplesAreEnough) {
  for (const std::int64_t n : {2, 3}) {
    torch::nn::Linear model(torch::nn::LinearOptions(2, 1).bias(false));
    model->to(torch::kDouble);
    {
      const torch::NoGradGuard no_grad;
      model->weight.fill_(0.3);
    }
    const auto x = torch::eye(n, 2, torch::kDouble) * std::sqrt(double(n));
    const Data data(x, model->forward(x).detach());
    expect_converged_around(estimate_llc({*model, gaussian(), data}, loose()), 1);
  }
}

TEST(GivenGamma, IsJudgedAsOneThatWasFound) {
  // Chains go far beyond |w*|, where the loss is the same.
  Regression problem(1, 1, 0.05);
  const auto found = problem.estimate(gaussian(), loose());
  EXPECT_TRUE(found.converged()) << found.verdict();
  EXPECT_GT(*found.diagnostics.relative_distance, 1);
  const auto given = problem.estimate(gaussian(), loose().gamma(found.settings.gamma));
  EXPECT_TRUE(given.converged()) << given.verdict();
  EXPECT_GT(*given.diagnostics.relative_distance, 1);
}

// ---- the search alone ----

Stage stage_of(double gamma, double lambda, double error, double slope, double slope_error) {
  Stage stage;
  stage.gamma = gamma;
  stage.draws = 1000;
  stage.lambda = lambda;
  stage.standard_error = error;
  stage.mean_distance = 1;
  stage.gamma_response = slope * std::log(2.0);
  stage.gamma_response_error = slope_error * std::log(2.0);
  return stage;
}

GammaSearch search_of(double curvature = 1) {
  return {LlcOptions(),
          {.n_beta = 100,
           .typical_curvature = curvature,
           .largest_curvature = 2 * curvature,
           .parameters = 4,
           .start_length = 0}};
}

TEST(GammaSearchAlone, GammaHasTheUnitOfTheCurvature) {
  EXPECT_DOUBLE_EQ(search_of().first(), 4 * 0.3);
  EXPECT_DOUBLE_EQ(search_of(1e-8).first(), 4 * 0.3e-8);
  EXPECT_DOUBLE_EQ(gamma_rule(0.01, 1), 0.03 * 0.01);
  EXPECT_DOUBLE_EQ(search_of(0).first(), 4 * 0.3);
}

TEST(GammaSearchAlone, APreciseSlopeSettlesWhateverTheNoiseOfLambda) {
  auto search = search_of();
  EXPECT_TRUE(search.decide(stage_of(1.2, 0.2, 0.02, 0.006, 0.0002), false, 10000).lower);
  const auto here = stage_of(0.3, 0.27, 0.02, 0.002, 0.0002);
  EXPECT_TRUE(search.settles(here));
  EXPECT_FALSE(search.decide(here, false, 10000).lower);
  EXPECT_TRUE(search.settled());
  EXPECT_EQ(search.limited(), "");
}

TEST(GammaSearchAlone, ASlopeOfChainsThatAreOnTheirWayDoesNotSettle) {
  auto search = search_of();
  search.decide(stage_of(1.2, 0.40, 0.01, 0.006, 0.0002), false, 10000);
  auto here = stage_of(0.3, 0.45, 0.01, 0.002, 0.0002);
  EXPECT_TRUE(search.settles(here));
  here.distance_ratio = 0.1;
  here.distance_ratio_error = 0.1;
  EXPECT_FALSE(search.settles(here));
  EXPECT_FALSE(depends_little_on_gamma(here));
}

TEST(GammaSearchAlone, ASlopeThatHardlyFallsDoesNotSettle) {
  // Of a logarithm: each slope is 0.7 of the last, and much more is to come than twice the last.
  auto search = search_of();
  search.decide(stage_of(1.2, 0.42, 0.002, 0.0100, 0.0001), false, 10000);
  EXPECT_FALSE(search.settles(stage_of(0.3, 0.44, 0.002, 0.0070, 0.0001)));
  EXPECT_TRUE(search.settles(stage_of(0.3, 0.44, 0.002, 0.0035, 0.0001)));
}

TEST(GammaSearchAlone, NoiseIsNoMoveThatLasts) {
  auto search = search_of();
  search.decide(stage_of(1.2, 1.00, 0.05, 0.05, 0.05), false, 10000);
  search.decide(stage_of(0.3, 1.01, 0.05, 0.05, 0.05), false, 10000);  // by chance as at the gamma before
  EXPECT_TRUE(search.decide(stage_of(0.075, 1.16, 0.05, 0.05, 0.05), false, 10000).lower);
  EXPECT_EQ(search.limited(), "");
}

TEST(GammaSearchAlone, TheGammaWithTheSmallestErrorIsTaken) {
  auto search = search_of();
  EXPECT_TRUE(search.decide(stage_of(1.2, 0.20, 0.010, 0.03, 0.001), false, 10000).take);
  EXPECT_TRUE(search.decide(stage_of(0.3, 0.24, 0.010, 0.012, 0.001), false, 10000).take);
  const auto last = search.decide(stage_of(0.075, 0.15, 0.060, 0.02, 0.02), false, 100);
  EXPECT_FALSE(last.take);
  EXPECT_FALSE(last.lower);
  EXPECT_EQ(search.limited(),
            "gamma_limited: lambda 0.24 at gamma 0.3, and smaller ones would change it by about 0.024");
}

TEST(StepRuleLooks, WhatIsForgottenCountsNoLonger) {
  StepRule rule(LlcOptions(), 10, std::nullopt);
  rule.see(100);
  rule.forget(1);
  for (const double mu : {2.0, 3.0, 1.0, std::numeric_limits<double>::infinity()}) rule.see(mu);
  EXPECT_EQ(rule.mu_max(), 3);
  EXPECT_DOUBLE_EQ(rule.eps(5), 0.5 / (10 * 3 + 5));
}

}  // namespace
}  // namespace dds
