// estimate_llc against closed forms and quadrature, its verdicts, and what it leaves behind.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <limits>
#include <set>
#include <tuple>

#include "src/llc/calibration.hpp"
#include "src/llc/chain.hpp"
#include "src/llc/objective.hpp"
#include "src/model/random.hpp"
#include "tests/llc/landscapes.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Generator generator(std::uint64_t seed) { return generator_for(at::kCPU, test::seed(seed), 0); }

/// L(w) = 1/2 sum_i mu_i (w_i - w*_i)^2 around w* = 1, plus (if `slope`) a linear term with gradient g_i at w*.
struct Quadratic {
  torch::nn::Linear model{nullptr};
  Data data;
  std::vector<double> mu;

  Quadratic(std::vector<double> curvatures, std::vector<double> slope = {}) : mu(std::move(curvatures)) {
    const auto d = static_cast<std::int64_t>(mu.size());
    model = torch::nn::Linear(torch::nn::LinearOptions(d, 1).bias(false));
    model->to(torch::kDouble);
    const torch::NoGradGuard no_grad;
    model->weight.fill_(1.0);
    // Row i is sqrt(d mu_i) e_i, so that X^T X / n = diag(mu).
    const auto scale = torch::tensor(mu, torch::kDouble).mul(static_cast<double>(d)).sqrt();
    const auto x = torch::diag(scale);
    auto y = model->forward(x);
    if (!slope.empty())
      y -= (torch::tensor(slope, torch::kDouble) * static_cast<double>(d) / scale).nan_to_num().unsqueeze(1);
    data = Data(x, y.clone());
  }

  /// sum n_beta mu / (2 (n_beta mu + gamma)).
  double lambda(double n_beta, double gamma) const {
    double sum = 0;
    for (const double m : mu) sum += n_beta * m / (2 * (n_beta * m + gamma));
    return sum;
  }
};

LlcOptions quick() { return LlcOptions().threads(1).seed(test::seed(11)).chains(4).burn_in(300).draws(2000); }

void expect_failure(const LlcEstimate& estimate, const std::string& part) {
  EXPECT_FALSE(estimate.converged());
  EXPECT_TRUE(test::fails_by(estimate, part)) << "failures: " << testing::PrintToString(estimate.failures);
}

std::string name_of(const testing::TestParamInfo<Sampler>& info) { return std::string(to_string(info.param)); }

const auto kSamplers = testing::Values(Sampler::Sgld, Sampler::RmspropSgld, Sampler::Mala, Sampler::AveragedNoise);

class QuadraticLoss : public testing::TestWithParam<std::tuple<std::vector<double>, Sampler>> {};

TEST_P(QuadraticLoss, MatchesItsClosedFormAtTheSameGamma) {
  const auto& [mu, sampler] = GetParam();
  Quadratic problem(mu);
  const double n_beta = 200, gamma = 20;
  const auto estimate =
      estimate_llc({*problem.model, gaussian(), problem.data}, quick().n_beta(n_beta).gamma(gamma).sampler(sampler));
  ASSERT_TRUE(estimate.lambda);
  test::expect_near(*estimate.lambda, problem.lambda(n_beta, gamma), *estimate.standard_error);
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
  EXPECT_DOUBLE_EQ(estimate.settings.resolution, gamma / n_beta);
  EXPECT_EQ(estimate.settings.sampler, to_string(sampler));
  test::expect_near(*estimate.diagnostics.distance_ratio, 1, *estimate.diagnostics.distance_ratio_error);
  if (sampler == Sampler::Sgld || sampler == Sampler::RmspropSgld) return;  // the step has its part in the response
  // log 2 times the derivative of -lambda by log gamma: sum p (1 - p) / 2, p = n beta mu / (n beta mu + gamma).
  double response = 0;
  for (const double m : mu) {
    const double p = n_beta * m / (n_beta * m + gamma);
    response += std::log(2.0) * p * (1 - p) / 2;
  }
  test::expect_near(*estimate.diagnostics.gamma_response, response, *estimate.diagnostics.gamma_response_error);
}

INSTANTIATE_TEST_SUITE_P(Spectra, QuadraticLoss,
                         testing::Combine(testing::Values(std::vector<double>{1, 1, 1, 1},
                                                          std::vector<double>{2, 1, 0.5, 0.2, 0.1},
                                                          std::vector<double>{1, 0.3, 0.1, 0.01, 0, 0}),
                                          kSamplers));

TEST(LlcQuadratic, TheStepIsTheShareOfTheLargestCurvatureThatWasAskedFor) {
  Quadratic problem({2, 1, 0.5, 0.2, 0.1});
  const double n_beta = 200, gamma = 20;
  for (const double c : {0.2, 0.5}) {
    const auto estimate =
        estimate_llc({*problem.model, gaussian(), problem.data},
                     quick().n_beta(n_beta).gamma(gamma).sampler(Sampler::AveragedNoise).relative_step(c));
    EXPECT_NEAR(estimate.diagnostics.mu_max, 2, 0.1);
    EXPECT_NEAR(estimate.settings.step_size * (n_beta * estimate.diagnostics.mu_max + gamma), c, 1e-12);
  }
}

TEST(LlcQuadratic, MalaFindsTheStepOfItsAcceptance) {
  Quadratic problem(std::vector<double>(40, 1.0));
  const auto estimate =
      estimate_llc({*problem.model, gaussian(), problem.data},
                   quick().n_beta(200).gamma(20).sampler(Sampler::Mala).max_relative_distance(kInfinity));
  EXPECT_NEAR(*estimate.diagnostics.acceptance, 0.8, 0.06);
  EXPECT_EQ(*estimate.diagnostics.discretisation, 0);
  EXPECT_FALSE(estimate.diagnostics.step_change);
}

TEST(LlcQuadratic, TheDiscretisationTakenOffIsThatOfTheChain) {
  Quadratic problem({1, 1, 1, 1, 1, 1});
  const double n_beta = 1000, gamma = 1, c = 0.5;
  const auto settings = quick().n_beta(n_beta).gamma(gamma).relative_step(c);
  const auto sgld =
      estimate_llc({*problem.model, gaussian(), problem.data}, LlcOptions(settings).sampler(Sampler::Sgld));
  // The variance 1/h becomes 1/(h (1 - c/4)): lambda c/(4 - c) too much.
  EXPECT_NEAR(*sgld.diagnostics.discretisation / (3.0 * c / (4 - c)), 1.0, 0.05);
  test::expect_near(*sgld.lambda, problem.lambda(n_beta, gamma), *sgld.standard_error);
  // Averaged noise has none to take off.
  const auto averaged =
      estimate_llc({*problem.model, gaussian(), problem.data}, LlcOptions(settings).sampler(Sampler::AveragedNoise));
  EXPECT_EQ(*averaged.diagnostics.discretisation, 0);
  test::expect_near(*averaged.lambda, problem.lambda(n_beta, gamma), *averaged.standard_error);
  test::expect_near(*averaged.diagnostics.step_change, 0, *averaged.diagnostics.step_change_error);
}

TEST(LlcQuadratic, IsThatOfARegularModelWithItsFluctuationAndWbic) {
  // Linear regression whose noise has variance 1: lambda = d/2, and the fluctuation is d/2 too.
  const std::int64_t n = 2000, d = 4;
  auto g = generator(8);
  const auto x = std::get<0>(torch::linalg_qr(torch::randn({n, d}, g, torch::kDouble))) * std::sqrt(double(n));
  auto noise = torch::randn({n, 1}, g, torch::kDouble);
  noise -= x.mm(x.t().mm(noise)) / double(n);
  noise *= std::sqrt(double(n)) / noise.norm().item<double>();
  torch::nn::Linear model(torch::nn::LinearOptions(d, 1).bias(false));
  model->to(torch::kDouble);
  const Data data(x, (model->forward(x) + noise).detach());
  const auto estimate = estimate_llc({*model, gaussian(), data}, quick().gamma(0.1).max_relative_distance(kInfinity));
  const double n_beta = double(n) / std::log(double(n)), held = n_beta / (n_beta + 0.1);
  test::expect_near(*estimate.lambda, held * d / 2, *estimate.standard_error);
  EXPECT_NEAR(*estimate.singular_fluctuation, held * d / 2, 0.25);
  EXPECT_NEAR(*estimate.wbic, n * 0.5 + std::log(double(n)) * *estimate.lambda, 1e-6 * n);
  const auto at_another_temperature =
      estimate_llc({*model, gaussian(), data}, quick().draws(100).gamma(0.1).n_beta(100));
  EXPECT_FALSE(at_another_temperature.wbic);
}

TEST(LlcQuadratic, DistanceIsThatOfTheGaussian) {
  Quadratic problem({1, 0.5, 0});
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     quick().n_beta(100).gamma(20).max_relative_distance(kInfinity));
  test::expect_near(*estimate.diagnostics.distance_ratio, 1, *estimate.diagnostics.distance_ratio_error);
  EXPECT_NEAR(*estimate.diagnostics.distance, std::sqrt(1.0 / 120 + 1.0 / 70 + 1.0 / 20), 0.02);
  EXPECT_NEAR(*estimate.diagnostics.relative_distance, *estimate.diagnostics.distance / std::sqrt(3.0), 1e-12);
}

TEST(LlcQuadratic, TiltingLeavesTheCurvatureAlone) {
  Quadratic problem({1, 0.5, 0.2, 0.1}, {0.3, 0.2, 0, 0.1});
  const double n_beta = 200, gamma = 20;
  const auto settings = quick().n_beta(n_beta).gamma(gamma).max_relative_distance(kInfinity);
  const auto tilted =
      estimate_llc({*problem.model, gaussian(), problem.data}, LlcOptions(settings).kind(LlcKind::Tilted));
  test::expect_near(*tilted.lambda, problem.lambda(n_beta, gamma), *tilted.standard_error);
  EXPECT_TRUE(tilted.converged()) << tilted.verdict();
  EXPECT_EQ(tilted.kind, LlcKind::Tilted);
  EXPECT_FALSE(tilted.wbic);

  const auto plain = estimate_llc({*problem.model, gaussian(), problem.data}, settings);
  double expected = problem.lambda(n_beta, gamma), descent = 0;
  const std::vector<double> g = {0.3, 0.2, 0, 0.1};
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double h = n_beta * problem.mu[i] + gamma, b = n_beta * g[i];
    expected -= b * b / h * (1 - n_beta * problem.mu[i] / (2 * h));
    descent += b * b / h;
  }
  test::expect_near(*plain.lambda, expected, *plain.standard_error, 0.02 * std::abs(expected));
  EXPECT_GE(*plain.diagnostics.descent, descent * (1 - 1e-9));
  EXPECT_LE(*plain.diagnostics.descent, descent * 1.06);
  expect_failure(plain, "no minimum");
}

TEST(LlcQuadratic, APointThatIsNoMinimumIsNotConvergedAndANegativeEstimateNeitherShown) {
  Quadratic problem({1, 1, 1}, {2, 2, 2});
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data}, quick().n_beta(100).gamma(5));
  EXPECT_LT(*estimate.lambda, 0);
  expect_failure(estimate, "is not positive");
  expect_failure(estimate, "below_baseline");
}

TEST(LlcMiniBatch, MatchesTheClosedFormAndCountsAllSamples) {
  // Two weights, n samples with noisy targets, w* at the least squares.
  const std::int64_t n = 400;
  auto g = generator(3);
  const auto q = torch::linalg_qr(torch::randn({n, 2}, g, torch::kDouble));
  const auto inputs = std::get<0>(q) * std::sqrt(static_cast<double>(n));  // X^T X / n = 1
  auto noise = torch::randn({n, 1}, g, torch::kDouble);
  noise -= inputs.mm(inputs.t().mm(noise)) / static_cast<double>(n);
  torch::nn::Linear model(torch::nn::LinearOptions(2, 1).bias(false));
  model->to(torch::kDouble);
  const Data data(inputs, (model->forward(inputs) + noise).detach());
  for (const auto kind : {LlcKind::Plain, LlcKind::Tilted}) {
    const auto estimate = estimate_llc({*model, gaussian(), data},
                                       quick().kind(kind).batch_size(100).gamma(5).max_relative_distance(kInfinity));
    const double n_beta = static_cast<double>(n) / std::log(static_cast<double>(n));
    EXPECT_DOUBLE_EQ(estimate.settings.n_beta, n_beta);
    EXPECT_EQ(estimate.settings.batch_size, 100);
    EXPECT_EQ(estimate.settings.samples, n);
    EXPECT_LT(*estimate.diagnostics.batch_noise, LlcBounds::kBatchNoise);
    test::expect_near(*estimate.lambda, n_beta / (n_beta + 5), *estimate.standard_error, 0.01);
    EXPECT_LT(*estimate.standard_error, 0.1);
  }
}

TEST(LlcMiniBatch, TooLargeAStepForTheNoiseOfTheBatchesIsCaught) {
  Quadratic problem(std::vector<double>(64, 1.0));
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     quick().draws(200).batch_size(4).n_beta(100).gamma(50).step_size(0.002));
  expect_failure(estimate, "batch_noise");
}

TEST(LlcMiniBatch, TheBaselineOfTheSameBatchTakesMostOfTheNoiseAway) {
  auto g = generator(5);
  const auto x = torch::randn({1000, 4}, g, torch::kDouble);
  torch::nn::Linear model(4, 1);
  model->to(torch::kDouble);
  const auto y = (model->forward(x) + torch::randn({1000, 1}, g, torch::kDouble)).detach();
  Replica replica(model.ptr(), forward_of<torch::nn::LinearImpl>(), trainable_parameters(*model));
  const Objective objective(gaussian(), Data(x, y), LlcKind::Plain, 50, replica);
  replica.weights().add_(0.05);
  std::vector<double> excess, loss;
  for (int i = 0; i < 200; ++i) {
    const auto batch = objective.draw(50, {test::seed(17), static_cast<std::uint64_t>(i), 1});
    excess.push_back(objective.at(replica, batch).excess);
    loss.push_back(excess.back() + batch.start_losses.mean().item<double>());
  }
  const auto spread = [](const std::vector<double>& values) {
    return torch::tensor(values, torch::kDouble).std().item<double>();
  };
  EXPECT_LT(spread(excess), 0.5 * spread(loss));
}

/// y = W2 W1 x.
struct ReducedRankImpl : torch::nn::Cloneable<ReducedRankImpl> {
  ReducedRankImpl(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs)
      : inputs(inputs), hidden(hidden), outputs(outputs) {
    reset();
  }
  void reset() override {
    first = register_parameter("first", torch::zeros({hidden, inputs}, torch::kDouble));
    second = register_parameter("second", torch::zeros({outputs, hidden}, torch::kDouble));
  }
  torch::Tensor forward(torch::Tensor x) { return x.mm(first.t()).mm(second.t()); }
  std::int64_t inputs, hidden, outputs;
  torch::Tensor first, second;
};
TORCH_MODULE(ReducedRank);

/// Cells of reduced-rank regression at the population loss: X^T X / n = 1, and w* the minimum-norm point (elsewhere a
/// true parameter can be less singular).
struct Cell {
  std::int64_t inputs, hidden, outputs, rank;
  double lambda;
};

class ReducedRankRegression : public testing::TestWithParam<Cell> {};

TEST_P(ReducedRankRegression, IsFoundWithoutASetting) {
  const auto& c = GetParam();
  ReducedRank model(c.inputs, c.hidden, c.outputs);
  {
    const torch::NoGradGuard no_grad;
    for (std::int64_t i = 0; i < c.rank; ++i) model->first[i][i] = model->second[i][i] = 1;
  }
  const auto x = torch::eye(c.inputs, torch::kDouble) * std::sqrt(static_cast<double>(c.inputs));
  const Data data(x, model->forward(x).detach());
  const auto estimate =
      estimate_llc({*model, gaussian(), data},
                   LlcOptions().threads(1).seed(test::seed(2)).n_beta(1e4 / std::log(1e4)).target_error(0.015));
  ASSERT_TRUE(estimate.lambda);
  EXPECT_TRUE(estimate.converged()) << estimate.verdict();
  EXPECT_EQ(estimate.settings.sampler, "mala");
  EXPECT_LT(*estimate.low, c.lambda + 0.01 * c.lambda);
  EXPECT_GT(*estimate.high, c.lambda - 0.01 * c.lambda);
  EXPECT_LT(*estimate.standard_error, 0.02 * c.lambda);
  ASSERT_GE(estimate.trials.size(), 2u);
  EXPECT_EQ(estimate.trials.back().outcome, "taken");
  EXPECT_DOUBLE_EQ(estimate.trials.back().gamma, estimate.settings.gamma);
  EXPECT_DOUBLE_EQ(*estimate.trials.back().lambda, *estimate.lambda);
}

INSTANTIATE_TEST_SUITE_P(Cells, ReducedRankRegression,
                         testing::Values(Cell{10, 2, 5, 1, 9}, Cell{10, 3, 5, 3, 18}, Cell{10, 5, 5, 3, 20}));

/// f = w1 w2, so that L = (w1 w2)^2 / 2: the Hessian at 0 vanishes.
struct CrossingImpl : torch::nn::Cloneable<CrossingImpl> {
  CrossingImpl() { reset(); }
  void reset() override {
    w1 = register_parameter("w1", torch::zeros({1}, torch::kDouble));
    w2 = register_parameter("w2", torch::zeros({1}, torch::kDouble));
  }
  torch::Tensor forward(torch::Tensor x) { return x * w1 * w2; }
  torch::Tensor w1, w2;
};
TORCH_MODULE(Crossing);

const Data& ones() {
  static const Data data(torch::ones({2, 1}, torch::kDouble), torch::zeros({2, 1}, torch::kDouble));
  return data;
}

class NormalCrossing : public testing::TestWithParam<Sampler> {};

TEST_P(NormalCrossing, MatchesQuadratureAtTheSameGamma) {
  const double n_beta = 100, gamma = 2;
  // Given w1 = a, w2 is N(0, 1/(n_beta a^2 + gamma)): one dimension is left.
  double mass = 0, sum = 0;
  for (double a = -8; a <= 8; a += 1e-4) {
    const double h = n_beta * a * a + gamma;
    const double weight = std::exp(-gamma * a * a / 2) / std::sqrt(h);
    mass += weight;
    sum += weight * n_beta * a * a / (2 * h);
  }
  Crossing model;
  const auto estimate = estimate_llc({*model, gaussian(), ones()},
                                     quick().n_beta(n_beta).gamma(gamma).burn_in(1000).draws(8000).sampler(GetParam()));
  EXPECT_EQ(estimate.diagnostics.diverged, 0);
  EXPECT_GT(estimate.diagnostics.mu_max, 0.5);
  EXPECT_FALSE(estimate.diagnostics.relative_distance);
  test::expect_near(*estimate.lambda, sum / mass, *estimate.standard_error);
  EXPECT_LT(*estimate.standard_error, 0.04);
}

INSTANTIATE_TEST_SUITE_P(Samplers, NormalCrossing,
                         testing::Values(Sampler::Sgld, Sampler::Mala, Sampler::AveragedNoise), name_of);

TEST(LlcNormalCrossing, OfMultiplicityTwoIsLimitedByGammaAndSaysSo) {
  // lambda = 1/2 is reached like 1/log gamma only: no gamma will do.
  Crossing model;
  const auto estimate = estimate_llc({*model, gaussian(), ones()},
                                     LlcOptions().threads(1).n_beta(1e3).target_error(0.03).max_gradients(60000));
  expect_failure(estimate, "gamma_limited");
  EXPECT_LT(*estimate.lambda, 0.47);
}

TEST(LlcVerdict, DivergenceIsAVerdictAndLeavesNoNumber) {
  Quadratic problem({1, 1});
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     quick().n_beta(100).gamma(1).sampler(Sampler::Sgld).step_size(1.0));
  EXPECT_FALSE(estimate.lambda);
  EXPECT_EQ(estimate.diagnostics.diverged, 4);
  expect_failure(estimate, "4 of 4 chains diverged");
}

/// One thing wrong with the settings, and what has to be said of it.
struct Bad {
  std::string name, said;
  std::function<LlcOptions(LlcOptions)> spoil;
  std::vector<double> slope;
};
void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

class BadSettings : public testing::TestWithParam<Bad> {};

TEST_P(BadSettings, AreCaughtWhateverTheSeed) {
  const auto& bad = GetParam();
  Quadratic problem({1, 1, 0.5, 0.1, 0, 0}, bad.slope);
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const auto good = LlcOptions().threads(1).seed(test::seed(seed)).burn_in(300).draws(1500).n_beta(500).gamma(20);
    const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data}, bad.spoil(good));
    EXPECT_FALSE(estimate.converged()) << "seed " << seed;
    EXPECT_TRUE(test::fails_by(estimate, bad.said))
        << "seed " << seed << ": " << testing::PrintToString(estimate.failures);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Settings, BadSettings,
    testing::Values(Bad{"step_too_large_sgld",
                        "discretisation",
                        [](LlcOptions o) { return o.sampler(Sampler::Sgld).relative_step(1.5); },
                        {}},
                    Bad{"step_too_large_mala",
                        "acceptance",
                        [](LlcOptions o) { return o.sampler(Sampler::Mala).step_size(0.02); },
                        {}},
                    Bad{"step_too_small_sgld",
                        "|w-w*| not stationary",
                        [](LlcOptions o) { return o.sampler(Sampler::Sgld).step_size(1e-7); },
                        {}},
                    Bad{"step_too_small_mala",
                        "|w-w*| not stationary",
                        [](LlcOptions o) { return o.sampler(Sampler::Mala).step_size(1e-7); },
                        {}},
                    Bad{"gamma_too_large", "gamma_limited", [](LlcOptions o) { return o.gamma(1e5); }, {}},
                    Bad{"gamma_too_small", "|w-w*| not stationary", [](LlcOptions o) { return o.gamma(1e-3); }, {}},
                    Bad{"chains_too_short", "ess", [](LlcOptions o) { return o.burn_in(0).draws(20); }, {}},
                    Bad{"no_minimum", "no minimum", [](LlcOptions o) { return o; }, {1, 1, 0, 0, 0, 0}}),
    [](const auto& info) { return info.param.name; });

TEST(LlcVerdict, AGammaThatLetsChainsGoFarIsCaughtWhereLambdaDependsOnIt) {
  // The arms of w1 w2 = 0 are open, and w* is near their crossing.
  Crossing model;
  {
    const torch::NoGradGuard no_grad;
    model->w1.fill_(0.1);
  }
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const auto estimate = estimate_llc({*model, gaussian(), ones()},
                                       quick().seed(test::seed(seed)).n_beta(100).gamma(1).burn_in(1000).draws(3000));
    expect_failure(estimate, "neighbourhood");
  }
}

TEST(LlcVerdict, GoodSettingsConvergeWhateverTheSeed) {
  Quadratic problem({1, 1, 0.5, 0.1, 0, 0});
  for (const auto sampler : {Sampler::Sgld, Sampler::Mala, Sampler::AveragedNoise}) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data}, LlcOptions()
                                                                                         .threads(1)
                                                                                         .seed(test::seed(seed))
                                                                                         .burn_in(300)
                                                                                         .draws(1500)
                                                                                         .n_beta(500)
                                                                                         .gamma(20)
                                                                                         .sampler(sampler));
      EXPECT_TRUE(estimate.converged()) << to_string(sampler) << ", seed " << seed << ": " << estimate.verdict();
      test::expect_near(*estimate.lambda, problem.lambda(500, 20), *estimate.standard_error);
    }
  }
}

TEST(LlcVerdict, AChainTooShortForGammaIsCaughtThoughItsLossIsClean) {
  Quadratic problem({1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  const auto estimate =
      estimate_llc({*problem.model, gaussian(), problem.data},
                   quick().n_beta(1000).gamma(0.01).burn_in(100).draws(2000).max_relative_distance(kInfinity));
  EXPECT_LT(*estimate.diagnostics.r_hat, 1.05);
  EXPECT_LT(*estimate.diagnostics.distance_ratio, 0.5);
  expect_failure(estimate, "|w-w*| not stationary");
}

TEST(LlcVerdict, ABiasOfTheStepIsSeenAtHalfOfIt) {
  // On a quartic neither averaged noise nor the correction of SGLD is exact: at c near its limit half the step differs.
  Crossing model;
  const auto estimate = estimate_llc(
      {*model, gaussian(), ones()}, quick().n_beta(1000).gamma(30).sampler(Sampler::Sgld).step_size(0.012).draws(4000));
  ASSERT_TRUE(estimate.diagnostics.step_change);
  EXPECT_GT(std::abs(*estimate.diagnostics.step_change), 3 * *estimate.diagnostics.step_change_error);
  expect_failure(estimate, "half the step");
  // The interval owns up to it.
  EXPECT_GT(*estimate.high - *estimate.low, 2 * std::abs(*estimate.diagnostics.step_change));
}

TEST(LlcVerdict, TimeThatRunsOutIsSaid) {
  Quadratic problem({1, 1});
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     quick().n_beta(100).gamma(1).draws(100000000).max_seconds(0.3));
  EXPECT_LT(estimate.seconds, 2);
  EXPECT_LT(estimate.settings.draws, 100000000);
  expect_failure(estimate, "stopped after");
}

TEST(LlcVerdict, ACancelledRunSaysSo) {
  Quadratic problem({1, 1});
  std::atomic<int> asked = 0;
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     quick().n_beta(100).gamma(1).cancelled([&] { return ++asked > 5000; }));
  EXPECT_LT(estimate.settings.draws, 3000);
  expect_failure(estimate, "cancelled after");
}

TEST(LlcVerdict, ABudgetIsRespected) {
  Quadratic problem({1, 0.3, 0.1});
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data},
                                     LlcOptions().threads(1).n_beta(100).target_error(1e-4).max_gradients(20000));
  EXPECT_LT(estimate.gradients, 22000);
  EXPECT_GT(estimate.gradients, 10000);
}

TEST(LlcVerdict, ARunThatEndsInTheSearchForGammaKeepsTheEstimateThatItHas) {
  Quadratic problem({1, 0.3, 0.1});
  std::atomic<int> asked = 0;
  const auto estimate =
      estimate_llc({*problem.model, gaussian(), problem.data},
                   LlcOptions().threads(1).n_beta(1000).target_error(0.02).cancelled([&] { return ++asked > 12000; }));
  expect_failure(estimate, "cancelled after");
  ASSERT_TRUE(estimate.lambda);
  EXPECT_GT(estimate.settings.draws, 100);
  const auto taken = std::count_if(estimate.trials.begin(), estimate.trials.end(),
                                   [](const LlcTrial& trial) { return trial.outcome == "taken"; });
  EXPECT_EQ(taken, 1);
}

TEST(LlcVerdict, NothingThatVariesEndsWithoutALimit) {
  Crossing model;
  {
    const torch::NoGradGuard no_grad;
    model->w2.fill_(1.0);
  }
  const auto estimate = estimate_llc(
      {*model, gaussian(), ones()}, LlcOptions().threads(1).n_beta(100).parameters({"w2"}).max_gradients(std::nullopt));
  EXPECT_EQ(*estimate.lambda, 0);
  EXPECT_FALSE(estimate.converged());
}

TEST(LlcVerdict, AModelWithoutAFiniteLossIsAVerdict) {
  Quadratic problem({1, 1});
  const torch::NoGradGuard no_grad;
  problem.model->weight[0][0] = NAN;
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data}, quick().n_beta(10));
  EXPECT_FALSE(estimate.lambda);
  expect_failure(estimate, "the loss at w* is nan");
}

/// Batch norm and dropout, and a bias that never gets a gradient.
struct MixedImpl : torch::nn::Cloneable<MixedImpl> {
  MixedImpl() { reset(); }
  void reset() override {
    linear = register_module("linear", torch::nn::Linear(3, 8));
    norm = register_module("norm", torch::nn::BatchNorm1d(8));
    dropout = register_module("dropout", torch::nn::Dropout(0.5));
    head = register_module("head", torch::nn::Linear(8, 4));
    unused = register_parameter("unused", torch::ones({2}));
  }
  torch::Tensor forward(torch::Tensor x) {
    return head->forward(dropout->forward(torch::relu(norm->forward(linear->forward(x)))));
  }
  torch::nn::Linear linear{nullptr}, head{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::nn::Dropout dropout{nullptr};
  torch::Tensor unused;
};
TORCH_MODULE(Mixed);

/// The same in a module that cannot be cloned.
struct PlainMixed : torch::nn::Module {
  PlainMixed() { inner = register_module("inner", Mixed()); }
  torch::Tensor forward(torch::Tensor x) { return inner->forward(x); }
  Mixed inner{nullptr};
};

Data classes(std::uint64_t seed) {
  auto g = generator(seed);
  return {torch::randn({64, 3}, g), torch::randint(0, 4, {64}, g, torch::kLong)};
}

TEST(LlcReplicas, TheResultDoesNotDependOnThreadsOrOnHowTheyGotTheirModels) {
  auto model = std::make_shared<PlainMixed>();
  const auto data = classes(1);
  const auto settings = LlcOptions().chains(3).draws(60).burn_in(20).batch_size(16).gamma(50).seed(test::seed(4));
  const auto inner = estimate_llc({*model->inner, categorical(), data}, LlcOptions(settings).threads(1));
  const auto cloned = estimate_llc({*model->inner, categorical(), data}, LlcOptions(settings).threads(3));
  const auto in_turn = estimate_llc({*model, categorical(), data}, LlcOptions(settings).threads(3));
  const auto built =
      estimate_llc({*model, categorical(), data},
                   LlcOptions(settings).threads(2).factory([] { return std::make_shared<PlainMixed>(); }));
  EXPECT_EQ(inner.settings.replicas, "in turn");
  EXPECT_EQ(cloned.settings.replicas, "clone");
  EXPECT_EQ(in_turn.settings.replicas, "in turn");
  EXPECT_EQ(built.settings.replicas, "factory");
  for (const auto* other : {&cloned, &in_turn, &built}) {
    EXPECT_EQ(*inner.lambda, *other->lambda);
    EXPECT_EQ(*inner.standard_error, *other->standard_error);
    EXPECT_EQ(*inner.diagnostics.distance, *other->diagnostics.distance);
    EXPECT_EQ(inner.gradients, other->gradients);
  }
  const auto reseeded = estimate_llc({*model, categorical(), data}, LlcOptions(settings).seed(test::seed(5)));
  EXPECT_NE(*inner.lambda, *reseeded.lambda);
}

TEST(LlcQuadratic, TheFluctuationIsThatOfTheDrawsHoweverOftenProposalsAreRefused) {
  // One sample, l = (x w - y)^2 / 2 with l(w*) = 8: chains that mostly stay must not count l(w*) twice.
  torch::nn::Linear model(torch::nn::LinearOptions(1, 1).bias(false));
  model->to(torch::kDouble);
  {
    const torch::NoGradGuard no_grad;
    model->weight.fill_(1.0);
  }
  const Data data(torch::tensor({{1.0}, {-1.0}}, torch::kDouble), torch::tensor({{5.0}, {3.0}}, torch::kDouble));
  const auto estimate = estimate_llc(
      {*model, gaussian(), data}, quick().n_beta(10).gamma(1).sampler(Sampler::Mala).step_size(1.2).keep_weights(2000));
  EXPECT_LT(*estimate.diagnostics.acceptance, 0.4);
  const auto w = estimate.weights.reshape({-1});
  const auto variance = [](const at::Tensor& loss) { return loss.var().item<double>(); };
  const double expected = variance((w - 5).square() / 2) + variance((-w - 3).square() / 2);
  EXPECT_NEAR(*estimate.functional_variance / expected, 1, 0.2);
}

TEST(LlcReplicas, KeptWeightsAndTracesAreThoseOfTheChains) {
  Quadratic problem({1, 0.5});
  const auto settings = quick().n_beta(100).gamma(10).draws(1000).keep_trace(true).keep_weights(64);
  const auto estimate = estimate_llc({*problem.model, gaussian(), problem.data}, settings);
  ASSERT_EQ(estimate.trace.size(), 4u);
  EXPECT_EQ(estimate.trace[0].size(), 1000u);
  ASSERT_EQ(estimate.weights.dim(), 3);
  EXPECT_EQ(estimate.weights.size(0), 4);
  EXPECT_EQ(estimate.weights.size(2), 2);
  const auto kept = estimate.weights.size(1);
  ASSERT_GE(kept, 32);
  EXPECT_LE(kept, 64);
  // Draw i of the weights belongs to a draw of the trace: F = n beta/2 sum mu (w - 1)^2.
  const auto mu = torch::tensor(problem.mu, torch::kDouble);
  const auto loss = ((estimate.weights[1] - 1).square() * mu).sum(1) * 50;
  const auto trace = torch::tensor(estimate.trace[1], torch::kDouble);
  for (std::int64_t i = 0; i < kept; ++i) {
    EXPECT_LT((trace - loss[i]).abs().min().item<double>(), 1e-9) << i;
  }
  const double variance = (estimate.weights - 1).square().mean(torch::IntArrayRef({0, 1}))[0].item<double>();
  EXPECT_NEAR(variance, 1.0 / 110, 0.4 / 110);
}

TEST(LlcReplicas, PartOfTheParametersGivesTheRefinedCoefficient) {
  // w1 w2 at (0, 1): w1 alone is regular, w2 alone is free.
  Crossing model;
  {
    const torch::NoGradGuard no_grad;
    model->w2.fill_(1.0);
  }
  const auto settings = quick().n_beta(1000).gamma(1).max_relative_distance(kInfinity);
  const auto first = estimate_llc({*model, gaussian(), ones()}, LlcOptions(settings).parameters({"*1"}));
  EXPECT_EQ(first.settings.parameters, 1);
  test::expect_near(*first.lambda, 0.5 * 1000 / 1001, *first.standard_error);
  const auto second = estimate_llc({*model, gaussian(), ones()}, LlcOptions(settings).parameters({"w2"}));
  EXPECT_EQ(*second.lambda, 0);
  expect_failure(second, "not positive");
  EXPECT_EQ(model->w2.item<double>(), 1.0);
}

TEST(LlcReplicas, ABoxIsNotLeft) {
  for (const auto sampler : {Sampler::Mala, Sampler::AveragedNoise, Sampler::Sgld}) {
    Quadratic problem({1, 0.01});
    const auto estimate =
        estimate_llc({*problem.model, gaussian(), problem.data},
                     quick().n_beta(100).gamma(1).sampler(sampler).box(0.2).draws(1000).keep_weights(1000));
    EXPECT_LE((estimate.weights - 1).abs().max().item<double>(), 0.2 + 1e-12) << to_string(sampler);
    // The second direction, of curvature 2, is nearly uniform in the box.
    const double variance = (estimate.weights - 1).square().mean(torch::IntArrayRef({0, 1}))[1].item<double>();
    EXPECT_NEAR(variance, 0.04 / 3, 0.004) << to_string(sampler);
    EXPECT_FALSE(estimate.diagnostics.distance_ratio);
  }
}

TEST(LlcReplicas, Fp64IsSampledInCopiesOfAnFp32Model) {
  torch::nn::Linear model(2, 1);
  const auto before = model->weight.detach().clone();
  auto g = generator(6);
  const auto x = torch::randn({50, 2}, g);
  const Data data(x, model->forward(x).detach());
  const auto settings = quick().gamma(5).draws(200).keep_weights(4);
  const auto wide = estimate_llc({*model, gaussian(), data}, LlcOptions(settings).fp64(true));
  const auto narrow = estimate_llc({*model, gaussian(), data}, settings);
  EXPECT_EQ(wide.weights.scalar_type(), torch::kDouble);
  EXPECT_EQ(narrow.weights.scalar_type(), torch::kFloat);
  test::expect_near(*wide.lambda, *narrow.lambda, std::hypot(*wide.standard_error, *narrow.standard_error));
  EXPECT_TRUE(model->weight.equal(before));
  EXPECT_EQ(model->weight.scalar_type(), torch::kFloat);
}

TEST(LlcReplicas, AFactoryOfAnotherModelIsRefusedByName) {
  Mixed model;
  try {
    estimate_llc({*model, categorical(), classes(1)},
                 LlcOptions().threads(2).factory([] { return torch::nn::Linear(3, 8).ptr(); }));
    FAIL() << "no exception";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("'weight'"), std::string::npos) << error.what();
  }
}

TEST(LlcCaller, ModelGradientsAndDefaultGeneratorAreLeftAsTheyWere) {
  Mixed model;
  model->train();
  model->norm->eval();
  model->head->bias.set_requires_grad(false);
  const auto data = classes(2);
  categorical()->loss(model->forward(data.inputs[0]), data.targets).sum().backward();
  std::vector<torch::Tensor> values, tensors = model->parameters(), gradients;
  for (const auto& buffer : model->buffers()) tensors.push_back(buffer);
  ASSERT_FALSE(tensors.empty());
  std::vector<void*> addresses;
  for (const auto& tensor : tensors) {
    values.push_back(tensor.detach().clone());
    addresses.push_back(tensor.data_ptr());
    gradients.push_back(tensor.grad().defined() ? tensor.grad().clone() : torch::Tensor());
  }
  torch::manual_seed(9);
  const auto expected = torch::rand({3});
  torch::manual_seed(9);
  const int threads = torch::get_num_threads();

  for (const int count : {1, 2}) {
    const auto estimate = estimate_llc({*model, categorical(), data},
                                       LlcOptions().threads(count).chains(2).draws(30).burn_in(10).gamma(10));
    EXPECT_EQ(estimate.settings.parameters, 24 + 8 + 16 + 32 + 2);  // the frozen bias does not move
  }

  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_TRUE(tensors[i].equal(values[i]));
    EXPECT_EQ(tensors[i].data_ptr(), addresses[i]);
    EXPECT_EQ(tensors[i].grad().defined(), gradients[i].defined());
    if (gradients[i].defined()) {
      EXPECT_TRUE(tensors[i].grad().equal(gradients[i]));
    }
  }
  EXPECT_TRUE(model->is_training());
  EXPECT_TRUE(model->dropout->is_training());
  EXPECT_FALSE(model->norm->is_training());
  EXPECT_FALSE(model->head->bias.requires_grad());
  EXPECT_EQ(torch::get_num_threads(), threads);
  EXPECT_TRUE(torch::rand({3}).equal(expected));
}

TEST(LlcCaller, ExceptionsOfTheForwardComeThroughAndLeaveTheModel) {
  torch::nn::Linear model(2, 1);
  const auto before = model->weight.detach().clone();
  std::atomic<int> calls = 0;
  const Forward failing = [&](torch::nn::Module& module, const std::vector<at::Tensor>& x) {
    if (++calls > 100) throw std::domain_error("forward failed");
    return dynamic_cast<torch::nn::LinearImpl&>(module).forward(x[0]);
  };
  const Data data(torch::randn({8, 2}), torch::randn({8, 1}));
  for (const int threads : {1, 2}) {
    calls = 0;
    EXPECT_THROW(estimate_llc({*model, gaussian(), data, failing}, LlcOptions().threads(threads)), std::domain_error);
  }
  EXPECT_TRUE(model->weight.equal(before));
}

TEST(LlcCaller, ProgressRisesToOne) {
  Quadratic problem({1, 1});
  std::vector<double> shares;
  estimate_llc({*problem.model, gaussian(), problem.data},
               quick().n_beta(10).burn_in(50).draws(150).threads(2).progress([&](double p) { shares.push_back(p); }));
  ASSERT_FALSE(shares.empty());
  EXPECT_NEAR(*std::max_element(shares.begin(), shares.end()), 1.0, 1e-12);
}

TEST(LlcArguments, AreRefusedByName) {
  Quadratic problem({1, 1});
  const auto message = [&](const LlcOptions& options, const Data& data) -> std::string {
    try {
      estimate_llc({*problem.model, gaussian(), data}, options);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(contains(message(LlcOptions().chains(0), problem.data), "chains is 0"));
  EXPECT_TRUE(contains(message(LlcOptions().draws(3), problem.data), "draws is 3"));
  EXPECT_TRUE(contains(message(LlcOptions().burn_in(-2), problem.data), "burn_in is -2"));
  EXPECT_TRUE(contains(message(LlcOptions().step_size(-1e-3), problem.data), "step_size is -0.001"));
  EXPECT_TRUE(contains(message(LlcOptions().relative_step(3), problem.data), "relative_step is 3"));
  EXPECT_TRUE(contains(message(LlcOptions().gamma(NAN), problem.data), "gamma is nan"));
  EXPECT_TRUE(contains(message(LlcOptions().batch_size(3), problem.data),
                       "batch_size is 3, expected at most 2, the number of samples"));
  EXPECT_TRUE(contains(message(LlcOptions().box(-1), problem.data), "box is -1"));
  EXPECT_TRUE(contains(message(LlcOptions().target_error(0), problem.data), "target_error is 0"));
  EXPECT_TRUE(contains(message(LlcOptions().sampler(Sampler::Mala).batch_size(1), problem.data), "batch_size is 1"));
  EXPECT_TRUE(contains(message(LlcOptions().parameters({"head*"}), problem.data),
                       "parameters is 'head*', expected patterns that match some of weight"));
  EXPECT_TRUE(contains(message(LlcOptions(), Data(problem.data.inputs[0])), "data.targets is undefined"));
  EXPECT_TRUE(contains(message(LlcOptions(), problem.data.slice(0, 1)), "data.size() is 1"));

  torch::nn::ReLU empty;
  torch::nn::Linear half(2, 1);
  half->to(torch::kBFloat16);
  const auto coarse = Data(torch::ones({4, 2}, torch::kBFloat16), torch::ones({4, 1}, torch::kBFloat16));
  EXPECT_THROW(estimate_llc({*half, gaussian(), coarse}), InvalidArgument);
  EXPECT_THROW(estimate_llc({*empty, gaussian(), Data(torch::ones({2, 1}), torch::ones({2, 1}))}), InvalidArgument);
}

TEST(LlcCalibration, FiniteDifferencesStandInForAMissingDoubleBackward) {
  struct Opaque : torch::autograd::Function<Opaque> {
    static torch::Tensor forward(torch::autograd::AutogradContext* context, torch::Tensor x) {
      context->save_for_backward({x});
      return x * x;
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list grad) {
      if (torch::GradMode::is_enabled()) TORCH_CHECK(false, "no double backward");
      return {grad[0] * 2 * context->get_saved_variables()[0]};
    }
  };
  torch::nn::Linear model(torch::nn::LinearOptions(2, 1).bias(false));
  model->to(torch::kDouble);
  const Forward forward = [](torch::nn::Module& module, const std::vector<at::Tensor>& x) {
    return Opaque::apply(dynamic_cast<torch::nn::LinearImpl&>(module).weight) * x[0];
  };
  Replica replica(model.ptr(), forward, trainable_parameters(*model));
  // l = sum_j w_j^2 a_j: Hessian diag(2 a).
  const auto sum_of_outputs =
      likelihood("sum", [](const at::Tensor& output, const at::Tensor&) { return output.sum(1); });
  const Data data(torch::tensor({{1.0, 3.0}}, torch::kDouble), torch::zeros({1}, torch::kDouble));
  const Objective objective(sum_of_outputs, data, LlcKind::Plain, std::nullopt, replica);
  CurvatureProbe probe(objective, objective.all(), generator(1));
  EXPECT_NEAR(probe.largest(replica), 6.0, 0.1);
}

TEST(LlcChain, GeneratorsOfNeighbouringStreamsDiffer) {
  std::set<float> values;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    for (std::uint64_t stream = 0; stream < 8; ++stream) {
      values.insert(torch::rand({1}, generator_for(at::kCPU, seed, stream)).item<float>());
    }
  }
  EXPECT_GT(values.size(), 62u);
}

}  // namespace
}  // namespace dds
