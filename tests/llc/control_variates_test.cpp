// Control variates: unbiased on every batch, without noise where closed forms say so, and beside MALA on all samples.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/llc.hpp>
#include <dds/settle.hpp>
#include <map>

#include "src/llc/objective.hpp"
#include "src/model/random.hpp"
#include "tests/llc/landscapes.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

at::Generator variates_generator(std::uint64_t seed) { return generator_for(at::kCPU, test::seed(seed), 0); }

/// l_i(w) = 1/2 sum_j mu_j w_j^2 + b_i . w, with sum_i b_i = 0: all samples have one Hessian, and w* = 0. Only b_i
/// makes batches differ.
struct SlopedSamples {
  static constexpr std::int64_t n = 400;
  std::shared_ptr<torch::nn::Module> module = std::make_shared<torch::nn::Module>();
  at::Tensor mu = torch::tensor({4.0, 2.0, 1.0, 0.5}, torch::kDouble), b, weights;

  SlopedSamples() {
    auto g = variates_generator(21);
    b = torch::randn({n, 4}, g, torch::kDouble) * 2;
    b -= b.mean(0, true);
    weights = module->register_parameter("w", torch::zeros({4}, torch::kDouble));
  }
  Problem problem() const {
    return {*module, likelihood("l", [](const at::Tensor& output, const at::Tensor&) { return output; }),
            Data(b, torch::zeros({n})), [mu = mu, w = weights](torch::nn::Module&, const std::vector<at::Tensor>& x) {
              return (mu * w.square()).sum() / 2 + x[0].mv(w);
            }};
  }
  double lambda(double n_beta, double gamma) const {
    return (n_beta * mu / (2 * (n_beta * mu + gamma))).sum().item<double>();
  }
  /// (eps/8) (n beta)^2 tr Cov(b) / m: the heat of batches of m samples.
  double heat(double eps, double n_beta, double m) const {
    return eps / 8 * n_beta * n_beta * b.square().sum().item<double>() / n / m;
  }
};

LlcOptions on_batches() {
  return LlcOptions()
      .threads(1)
      .seed(test::seed(3))
      .batch_size(20)
      .n_beta(300)
      .gamma(20)
      .burn_in(300)
      .draws(3000)
      .sampler(Sampler::Sgld);
}

TEST(ControlVariates, TakeAllOfTheHeatWhereSamplesHaveOneHessian) {
  const SlopedSamples samples;
  const auto options = on_batches().step_size(0.2 / 1220).max_relative_distance(INFINITY);
  const auto with = estimate_llc(samples.problem(), options);
  EXPECT_LT(*with.diagnostics.batch_noise, 1e-12);
  test::expect_near(*with.lambda, samples.lambda(300, 20), *with.standard_error);
  const auto without = estimate_llc(samples.problem(), LlcOptions(options).control_variates(false));
  const double heat = samples.heat(without.settings.step_size, 300, 20);
  EXPECT_NEAR(*without.diagnostics.batch_noise * *without.lambda, heat, 0.2 * heat);
  EXPECT_TRUE(test::fails_by(without, "batch_noise")) << testing::PrintToString(without.failures);
  EXPECT_LT(*with.standard_error, *without.standard_error) << "the value has its control variate too";
}

TEST(ControlVariates, LeaveTheStepToTheSamplerWhereThereIsNoNoise) {
  const SlopedSamples samples;
  const auto options = on_batches().max_relative_distance(INFINITY).relative_step(0.3).draws(500);
  const auto relative = [](const LlcEstimate& e) { return e.settings.step_size * (300 * e.diagnostics.mu_max + 20); };
  EXPECT_NEAR(relative(estimate_llc(samples.problem(), options)), 0.3, 1e-9);
  // Without them, at most what the noise of a regular model allows; here the noise is larger.
  EXPECT_LT(relative(estimate_llc(samples.problem(), LlcOptions(options).control_variates(false))), 0.072 * 20 / 300);
}

/// A small network at a minimum of noisy labels, and its data.
struct SmallNetwork {
  torch::nn::Sequential model;
  Data data;

  explicit SmallNetwork(std::int64_t hidden, std::int64_t n = 300) {
    auto g = variates_generator(31);
    torch::manual_seed(test::seed(31));
    const auto x = torch::randn({n, 3}, g, torch::kDouble);
    const auto logits = torch::stack({x.select(1, 0), x.select(1, 1) * x.select(1, 2)}, 1);
    const auto y = torch::multinomial(torch::softmax(logits, 1), 1, false, g).squeeze(1);
    if (hidden > 0) {
      model->push_back(torch::nn::Linear(3, hidden));
      model->push_back(torch::nn::Tanh());
    }
    model->push_back(torch::nn::Linear(hidden > 0 ? hidden : 3, 2));
    model->to(torch::kDouble);
    data = Data(x, y);
    settle(problem(), SettleOptions().gamma(5).learning_rate(0.02).adam_steps(200).target_descent(1e-3).apply(true));
  }
  Problem problem() { return {*model, categorical(), data}; }
};

/// Each batch that is dealt, once, with the share of the samples that it has.
std::map<std::int64_t, Batch> all_batches(const Objective& objective) {
  std::map<std::int64_t, Batch> batches;
  for (std::uint64_t step = 0; step < 2000; ++step) {
    auto batch = objective.next({1, step, 1});
    batches.emplace(batch.number, std::move(batch));
  }
  return batches;
}

TEST(ControlVariates, HaveTheMeanOfAllSamplesInValueAndGradient) {
  SmallNetwork network(4, 50);
  const Replica replica(network.model.ptr(), network.problem().forward, trainable_parameters(*network.model));
  network.model->eval();
  for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
    const Objective objective(categorical(), network.data, kind, 8, replica, 5);
    const Objective whole(categorical(), network.data, kind, std::nullopt, replica);
    const auto start = replica.weights().clone();
    auto g = variates_generator(33);
    replica.weights().add_(torch::randn(start.sizes(), g, torch::kDouble), 0.3);
    const auto batches = all_batches(objective);
    EXPECT_EQ(batches.size(), 7u);
    double excess = 0, samples = 0;
    auto gradient = torch::zeros_like(start);
    for (const auto& [number, batch] : batches) {
      const auto size = static_cast<double>(batch.data.size());
      EXPECT_NEAR(size, 50.0 / 7, 1);
      const auto value = objective.at(replica, batch);
      samples += size;
      excess += size / 50 * value.excess;
      gradient.add_(objective.gradient_of(value), size / 50);
    }
    EXPECT_EQ(samples, 50);
    const auto expected = whole.at(replica, whole.all());
    EXPECT_NEAR(excess, expected.excess, 1e-12);
    EXPECT_TRUE(torch::allclose(gradient, whole.gradient_of(expected), 1e-9, 1e-12));
    replica.weights().copy_(start);
  }
}

class BesideMala : public testing::TestWithParam<std::int64_t> {};

TEST_P(BesideMala, IsWithinTheStatedInterval) {
  SmallNetwork network(GetParam());
  const auto options =
      LlcOptions().threads(1).seed(test::seed(7)).gamma(60).burn_in(300).draws(2000).max_relative_distance(INFINITY);
  const auto exact = estimate_llc(network.problem(), LlcOptions(options).sampler(Sampler::Mala));
  const auto batches =
      estimate_llc(network.problem(), LlcOptions(options).batch_size(100).relative_step(0.3).halve_step(false));
  ASSERT_TRUE(exact.lambda && batches.lambda);
  EXPECT_TRUE(exact.converged()) << exact.verdict();
  EXPECT_LT(*batches.standard_error, 0.1 * *batches.lambda);
  test::expect_near(*batches.lambda, *exact.lambda, std::hypot(*batches.standard_error, *exact.standard_error));
  EXPECT_LT(*batches.diagnostics.batch_noise, LlcBounds::kBatchNoise);
}

INSTANTIATE_TEST_SUITE_P(Networks, BesideMala, testing::Values(0, 3));

}  // namespace
}  // namespace dds
