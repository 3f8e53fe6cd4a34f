// settle against closed forms: quadratics, linear networks, separable and other data; and estimates that settle first.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/settle.hpp>

#include "src/model/random.hpp"
#include "tests/llc/landscapes.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

at::Generator settle_generator(std::uint64_t seed) { return generator_for(at::kCPU, test::seed(seed), 0); }

TEST(Settle, OnAQuadraticEndsAtItsMinimum) {
  const auto mu = torch::tensor({50.0, 4.0, 1.0, 0.2}, torch::kDouble);
  const auto least = torch::tensor({1.0, -2.0, 0.5, 3.0}, torch::kDouble);
  const test::Energy energy(torch::tensor({1.3, -1.0, 0.0, 1.0}, torch::kDouble),
                            [&](const at::Tensor& w) { return (mu * (w - least).square()).sum() / 2 + 0.25; });
  const auto problem = energy.problem();
  const auto before = problem.model.parameters()[0].detach().clone();
  const auto settled = settle(problem, SettleOptions().n_beta(1e4).gamma(10).target_descent(1e-6));
  EXPECT_TRUE(settled.is_stationary()) << settled.failure;
  EXPECT_TRUE(torch::allclose(settled.weights, least, 0, 1e-4));
  EXPECT_NEAR(settled.loss_after, 0.25, 1e-9);
  EXPECT_NEAR(settled.loss_before, 0.25 + (50 * 0.09 + 4 * 1 + 0.25 + 0.2 * 4) / 2, 1e-12);
  EXPECT_NEAR(settled.gradient_before, std::sqrt(225 + 16 + 0.25 + 0.16), 1e-9);
  EXPECT_NEAR(settled.distance, std::sqrt(0.09 + 1 + 0.25 + 4), 1e-4);
  EXPECT_NEAR(settled.relative_distance, settled.distance / std::sqrt(1.69 + 1 + 1), 1e-9);
  EXPECT_LE(settled.descent, 1e-6);
  EXPECT_TRUE(torch::equal(problem.model.parameters()[0], before)) << "weights of the caller have moved";
}

TEST(Settle, TheDescentThatIsLeftIsTheClosedForm) {
  // Nothing may move: A = (n beta)^2 sum g_i^2 / (n beta mu_i + gamma).
  const auto mu = torch::tensor({5.0, 1.0}, torch::kDouble), off = torch::tensor({0.1, 0.2}, torch::kDouble);
  const test::Energy energy(torch::tensor({0.0, 0.0}, torch::kDouble),
                            [&](const at::Tensor& w) { return (mu * (w - off).square()).sum() / 2; });
  const auto settled =
      settle(energy.problem(), SettleOptions().n_beta(100).gamma(20).adam_steps(0).lbfgs_steps(0).target_descent(1e-3));
  EXPECT_NEAR(settled.descent, 1e4 * (0.25 / 520 + 0.04 / 120), 1e-6);
  EXPECT_FALSE(settled.is_stationary());
  EXPECT_NE(settled.failure.find("descent"), std::string::npos) << settled.failure;
}

TEST(Settle, FindsTheLeastLossOfADeepLinearNetwork) {
  // Y = M X with X X^T = n: the least loss of W3 W2 W1 of full rank is that of the noise, 1/2 |E|^2 / n.
  auto g = settle_generator(3);
  const auto x = std::get<0>(torch::linalg_qr(torch::randn({300, 4}, g, torch::kDouble))) * std::sqrt(300.0);
  const auto m = torch::randn({4, 4}, g, torch::kDouble);
  auto noise = torch::randn({300, 4}, g, torch::kDouble);
  noise -= x.mm(x.t().mm(noise)) / 300;
  torch::manual_seed(test::seed(5));
  torch::nn::Sequential model(torch::nn::Linear(torch::nn::LinearOptions(4, 4).bias(false)),
                              torch::nn::Linear(torch::nn::LinearOptions(4, 4).bias(false)),
                              torch::nn::Linear(torch::nn::LinearOptions(4, 4).bias(false)));
  model->to(torch::kDouble);
  const Data data(x, x.mm(m) + noise);
  // -log N(y | f, 1) has log(2 pi)/2 for each output, unless the likelihood leaves constants out.
  const double constant =
      settle({*model, gaussian(), Data(x, model->forward(x).detach())}, SettleOptions().gamma(1)).loss_before;
  const double least = constant + noise.square().sum().item<double>() / 600;
  const auto settled = settle({*model, gaussian(), data}, SettleOptions().adam_steps(300).learning_rate(0.02).gamma(1));
  EXPECT_TRUE(settled.is_stationary()) << settled.failure;
  EXPECT_NEAR(settled.loss_after, least, 1e-3);
}

/// Two classes on a line, at +1 and -1 and, if `mixed`, a few of each on the wrong side.
Data classes(bool mixed) {
  auto x = torch::linspace(-2, 2, 40, torch::kDouble).unsqueeze(1);
  auto y = x.squeeze(1).gt(0).to(torch::kLong);
  if (mixed) y.slice(0, 15, 25) = 1 - y.slice(0, 15, 25);
  return {x, y};
}

TEST(Settle, SaysThatSeparableDataHaveNoMinimum) {
  torch::manual_seed(test::seed(7));
  torch::nn::Linear model(1, 2);
  model->to(torch::kDouble);
  const auto settled = settle({*model, categorical(), classes(false)}, SettleOptions().gamma(1));
  EXPECT_TRUE(settled.no_minimum);
  EXPECT_FALSE(settled.is_stationary());
  EXPECT_NE(settled.failure.find("no minimum"), std::string::npos) << settled.failure;
  const auto mixed = settle({*model, categorical(), classes(true)}, SettleOptions().gamma(1));
  EXPECT_FALSE(mixed.no_minimum);
  EXPECT_TRUE(mixed.is_stationary()) << mixed.failure;
}

TEST(Settle, OfAFarMinimumFromZeroWeightsIsNotTakenForNone) {
  const test::Energy energy(torch::zeros({3}, torch::kDouble),
                            [](const at::Tensor& w) { return (w - 30).square().sum() / 2; });
  const auto settled = settle(energy.problem(), SettleOptions().n_beta(10).gamma(1));
  EXPECT_TRUE(settled.is_stationary()) << settled.failure;
  EXPECT_NEAR(settled.distance, 30 * std::sqrt(3.0), 0.1);
}

/// Least squares of two weights with noise, from a checkpoint beside.
struct SettledRegression {
  torch::nn::Linear model{torch::nn::LinearOptions(2, 1).bias(false)};
  Data data;

  SettledRegression() {
    auto g = settle_generator(9);
    const auto x = torch::randn({400, 2}, g), noise = torch::randn({400, 1}, g);
    const torch::NoGradGuard no_grad;
    model->weight.fill_(1.0);
    data = Data(x, model->forward(x) + noise);
    model->weight.add_(0.2);
  }
  Problem problem() { return {*model, gaussian(), data}; }
};

TEST(Settle, OnMiniBatchesIsTheSameWhateverTheThreadsAndWritesTheModelOnlyIfAsked) {
  SettledRegression regression;
  const auto options = SettleOptions().batch_size(50).gamma(5).seed(4).learning_rate(0.01).target_descent(1e-4);
  const auto before = regression.model->weight.detach().clone();
  const auto one = settle(regression.problem(), SettleOptions(options).threads(1));
  const auto three = settle(regression.problem(), SettleOptions(options).threads(3));
  EXPECT_TRUE(one.is_stationary()) << one.failure;
  EXPECT_TRUE(torch::equal(one.weights, three.weights));
  EXPECT_TRUE(torch::equal(regression.model->weight, before));
  EXPECT_FALSE(regression.model->weight.grad().defined());
  settle(regression.problem(), SettleOptions(options).apply(true));
  EXPECT_TRUE(torch::equal(regression.model->weight.detach().flatten(), one.weights));
  const auto least =
      std::get<0>(torch::linalg_lstsq(regression.data.inputs[0], regression.data.targets, c10::nullopt, "gelsd"));
  EXPECT_TRUE(torch::allclose(one.weights, least.flatten(), 0, 2e-3)) << one.weights << least;
}

TEST(Settle, ABudgetThatEndsIsSaid) {
  SettledRegression regression;
  const auto settled =
      settle(regression.problem(),
             SettleOptions().batch_size(50).gamma(5).adam_steps(1000).learning_rate(1e-6).max_gradients(30));
  EXPECT_NE(settled.failure.find("stopped after"), std::string::npos) << settled.failure;
  EXPECT_LE(settled.loss_after, settled.loss_before);
}

TEST(Settle, ALossThatIsNotFiniteIsSaid) {
  const test::Energy energy(torch::zeros({2}, torch::kDouble), [](const at::Tensor& w) { return (w / 0).sum(); });
  EXPECT_NE(settle(energy.problem(), SettleOptions().n_beta(10).gamma(1)).failure.find("nan"), std::string::npos);
}

TEST(Settle, RefusesItsArgumentsByName) {
  SettledRegression regression;
  const auto refuse = [&](const SettleOptions& options, const char* name) {
    try {
      settle(regression.problem(), options);
      FAIL() << name;
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
  };
  refuse(SettleOptions().batch_size(401), "batch_size");
  refuse(SettleOptions().learning_rate(0), "learning_rate");
  refuse(SettleOptions().gamma(-1), "gamma");
  refuse(SettleOptions().target_descent(0), "target_descent");
  refuse(SettleOptions().lbfgs_steps(-1), "lbfgs_steps");
  refuse(SettleOptions().parameters({"nothing"}), "parameters");
}

TEST(SettledEstimate, OfACheckpointIsThatOfTheMinimum) {
  SettledRegression regression;
  const auto options =
      LlcOptions().threads(1).seed(test::seed(2)).gamma(5).burn_in(300).draws(2000).max_relative_distance(10);
  const auto as_it_is = estimate_llc(regression.problem(), options);
  EXPECT_FALSE(as_it_is.converged());
  EXPECT_NE(as_it_is.failures.at(0).find("settle"), std::string::npos) << as_it_is.verdict();
  EXPECT_FALSE(as_it_is.settled);
  const auto settled = estimate_llc(regression.problem(), LlcOptions(options).settle(SettleOptions()));
  EXPECT_TRUE(settled.converged()) << settled.verdict();
  ASSERT_TRUE(settled.settled);
  EXPECT_NEAR(settled.settled->distance, 0.28, 0.1);
  const auto& x = regression.data.inputs[0];
  const double n_beta = 400 / std::log(400.0);
  const auto mu = torch::linalg_eigvalsh(x.t().mm(x) / 400).to(torch::kDouble);
  const double expected = (n_beta * mu / (2 * (n_beta * mu + 5))).sum().item<double>();
  test::expect_near(*settled.lambda, expected, *settled.standard_error);
}

TEST(SettledEstimate, OfSeparableDataSaysSoAndHasNoNumber) {
  torch::nn::Linear model(1, 2);
  model->to(torch::kDouble);
  const auto estimate =
      estimate_llc({*model, categorical(), classes(false)}, LlcOptions().threads(1).gamma(1).settle(SettleOptions()));
  EXPECT_FALSE(estimate.lambda);
  EXPECT_NE(estimate.verdict().find("no minimum"), std::string::npos) << estimate.verdict();
}

}  // namespace
}  // namespace dds
