// Points that are no minimum although their gradient vanishes, against closed forms and quadrature.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/learning_coefficient.hpp>
#include <dds/llc.hpp>

#include "src/llc/lanczos.hpp"
#include "src/model/random.hpp"
#include "tests/llc/landscapes.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

LlcOptions at_a_saddle() { return LlcOptions().threads(1).seed(test::seed(21)).chains(4); }

void expect_saddle(const LlcEstimate& estimate) {
  EXPECT_FALSE(estimate.converged());
  EXPECT_TRUE(test::fails_by(estimate, "saddle")) << testing::PrintToString(estimate.failures);
}

void expect_no_saddle(const LlcEstimate& estimate) {
  EXPECT_FALSE(test::fails_by(estimate, "saddle")) << estimate.verdict();
}

// ---- Lanczos ----

at::Tensor symmetric(const std::vector<double>& eigenvalues, std::uint64_t seed, at::Tensor* basis = nullptr) {
  const auto d = static_cast<std::int64_t>(eigenvalues.size());
  auto g = generator_for(at::kCPU, test::seed(seed), 0);
  const auto q = std::get<0>(torch::linalg_qr(torch::randn({d, d}, g, torch::kDouble)));
  if (basis) *basis = q;
  return q.mm(torch::diag(torch::tensor(eigenvalues, torch::kDouble))).mm(q.t());
}

std::vector<NegativeDirection> negative_of(const at::Tensor& h, std::uint64_t seed,
                                           const std::vector<at::Tensor>& known = {}) {
  auto g = generator_for(at::kCPU, test::seed(seed), 1);
  return negative_directions([&](const at::Tensor& v) { return h.mv(v); }, torch::randn({h.size(0)}, g, h.options()),
                             known, [] { return false; });
}

TEST(Lanczos, FindsTheNegativeEigenvaluesOfASmallMatrix) {
  at::Tensor basis;
  const auto h = symmetric({-0.15, -0.01, 0, 0, 0.2, 1, 1, 30}, 1, &basis);
  const auto found = negative_of(h, 2);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_NEAR(found[0].curvature, -0.15, 1e-12);
  EXPECT_NEAR(found[1].curvature, -0.01, 1e-12);
  EXPECT_NEAR(std::abs(found[0].v.dot(basis.select(1, 0)).item<double>()), 1, 1e-10);
  EXPECT_NEAR(std::abs(found[1].v.dot(basis.select(1, 1)).item<double>()), 1, 1e-10);
}

TEST(Lanczos, FindsOneLowDirectionAmongThousands) {
  std::vector<double> eigenvalues(2000);
  for (std::size_t i = 0; i < eigenvalues.size(); ++i) eigenvalues[i] = 1e-3 * static_cast<double>(i % 100);
  eigenvalues[0] = 50;
  eigenvalues[1] = -0.05;
  const auto h = torch::diag(torch::tensor(eigenvalues, torch::kDouble));
  const auto found = negative_of(h, 3);
  ASSERT_FALSE(found.empty());
  EXPECT_NEAR(found[0].curvature, -0.05, 0.002);
  EXPECT_NEAR(found[0].curvature, found[0].v.dot(h.mv(found[0].v)).item<double>(), 1e-10);
}

TEST(Lanczos, FindsEqualEigenvaluesOneCallAfterTheOther) {
  const auto h = symmetric({-1, -1, -1, 2, 2, 3}, 4);
  std::vector<at::Tensor> known;
  for (int i = 0; i < 3; ++i) {
    const auto found = negative_of(h, 5 + static_cast<std::uint64_t>(i), known);
    ASSERT_EQ(found.size(), 1u) << i;
    EXPECT_NEAR(found[0].curvature, -1, 1e-10);
    for (const auto& other : known) EXPECT_NEAR(other.dot(found[0].v).item<double>(), 0, 1e-10);
    known.push_back(found[0].v);
  }
  EXPECT_TRUE(negative_of(h, 9, known).empty());
}

TEST(Lanczos, TakesNoRoundingForNegative) {
  const auto h = symmetric({0, 0, 0, 1e-3, 1, 100}, 6);
  EXPECT_TRUE(negative_of(h, 7).empty());
  EXPECT_TRUE(negative_of(h.to(torch::kFloat), 7).empty());
  EXPECT_TRUE(negative_of(torch::zeros({4, 4}), 7).empty());
}

// ---- estimates ----

/// y = W2 W1 x with `learned` modes of strength 1 in place; the target has a further one of strength `missing`.
struct Learned {
  std::int64_t learned;
  double missing;
};

LlcEstimate estimate_at(const Learned& stage) {
  struct Linear : torch::nn::Module {
    Linear() {
      first = register_parameter("first", torch::zeros({4, 10}, torch::kDouble));
      second = register_parameter("second", torch::zeros({8, 4}, torch::kDouble));
    }
    at::Tensor first, second;
  } model;
  const torch::NoGradGuard no_grad;
  for (std::int64_t i = 0; i < stage.learned; ++i) model.first[i][i] = model.second[i][i] = 1;
  auto target = model.second.mm(model.first);
  if (stage.missing != 0) target[stage.learned][stage.learned] = stage.missing;
  const auto x = torch::eye(10, torch::kDouble) * std::sqrt(10.0);
  const Forward forward = [](torch::nn::Module& module, const std::vector<at::Tensor>& inputs) {
    auto& m = dynamic_cast<Linear&>(module);
    return inputs[0].mm(m.first.t()).mm(m.second.t());
  };
  return estimate_llc({model, gaussian(), Data(x, x.mm(target.t())), forward},
                      at_a_saddle().n_beta(1e4 / std::log(1e4)).target_error(0.03).max_gradients(15000));
}

TEST(LlcSaddle, OfALinearNetworkThatHasNotLearnedAModeIsSeen) {
  const auto estimate = estimate_at({3, 0.15});
  EXPECT_LT(*estimate.diagnostics.descent, 1e-9);
  EXPECT_NEAR(*estimate.diagnostics.negative_curvature, -0.15, 1e-4);
  // It falls by n beta 0.15^2 / 2.
  EXPECT_NEAR(*estimate.diagnostics.saddle, 1e4 / std::log(1e4) * 0.15 * 0.15 / 2, 1.5);
  expect_saddle(estimate);
}

TEST(LlcSaddle, BeforeTheFirstModeIsSeenInEveryDirection) {
  const auto estimate = estimate_at({0, 0.15});
  EXPECT_NEAR(*estimate.diagnostics.negative_curvature, -0.15, 1e-4);
  expect_saddle(estimate);
}

TEST(LlcSaddle, OfAMinimumThereIsNone) {
  const auto estimate = estimate_at({3, 0});
  EXPECT_EQ(*estimate.diagnostics.saddle, 0);
  EXPECT_EQ(*estimate.diagnostics.negative_curvature, 0);
  expect_no_saddle(estimate);
  EXPECT_NEAR(*estimate.lambda, reduced_rank_coefficient(10, 4, 8, 3).lambda, 3);
}

/// K = 1/2 sum of 50 squares + (c v^4 - m v^2 / 2).
test::Energy one_negative(double m, double c) {
  return {torch::zeros({51}, torch::kDouble), [m, c](const at::Tensor& w) {
            const auto v = w[50];
            return 0.5 * w.narrow(0, 0, 50).square().sum() - 0.5 * m * v.square() + c * v.pow(4);
          }};
}

TEST(LlcSaddle, OneDirectionAmongFiftyHeldByGammaTakesOffItsClosedForm) {
  // n beta m is below gamma: the chains stay, and the direction adds -x / (2 (1 - x)) with x = n beta m / gamma.
  const double n_beta = 1000, gamma = 10;
  for (const double x : {0.5, 0.9, 0.95}) {
    const auto estimate = estimate_llc(one_negative(x * gamma / n_beta, 0).problem(),
                                       at_a_saddle().n_beta(n_beta).gamma(gamma).burn_in(500).draws(500));
    const double taken_off = x / (2 * (1 - x));
    EXPECT_NEAR(*estimate.diagnostics.saddle, taken_off, 1e-3 * taken_off);
    EXPECT_NEAR(*estimate.diagnostics.negative_curvature, -x * gamma / n_beta, 1e-9);
    if (x > 0.8) expect_saddle(estimate);
    // Below the bound the interval owns up to it.
    if (x < 0.8) {
      EXPECT_GT(*estimate.high - *estimate.low, 2 * 1.96 * taken_off);
    }
  }
}

TEST(LlcSaddle, OneDirectionAmongFiftyWithAValleyTakesOffWhatQuadratureSays) {
  const double n_beta = 1000, gamma = 10, m = 0.2, c = 1;
  const auto k = [&](double v) { return n_beta * (c * std::pow(v, 4) - m / 2 * v * v); };
  const double mean = test::mean_by_quadrature(
      k, [&](double v) { return k(v) + gamma / 2 * v * v; }, -2, 2);
  ASSERT_LT(mean, -0.05 * 25);
  const auto estimate =
      estimate_llc(one_negative(m, c).problem(), at_a_saddle().n_beta(n_beta).gamma(gamma).burn_in(500).draws(500));
  // By the curvature -mean, by where the chains lead the depth of the valley.
  EXPECT_GT(*estimate.diagnostics.saddle, -mean - 0.1);
  EXPECT_LT(*estimate.diagnostics.saddle, n_beta * m * m / (16 * c) + 1e-6);
  expect_saddle(estimate);
}

TEST(LlcSaddle, AValleyShallowerThanTheTemperatureIsNone) {
  const auto estimate =
      estimate_llc(one_negative(0.02, 1).problem(), at_a_saddle().n_beta(1000).gamma(1).burn_in(500).draws(500));
  EXPECT_LT(*estimate.diagnostics.negative_curvature, -0.019);
  EXPECT_LT(*estimate.diagnostics.saddle, 1000 * 0.02 * 0.02 / 16 + 1e-6);
  expect_no_saddle(estimate);
}

/// K = 1/2 sum of squares over 20 weights + (w1 w2 w3 - s)^2 / 2 at 0: a linear network of three layers that has not
/// learned its mode. The Hessian of the three vanishes: what falls is of third order.
TEST(LlcSaddle, OfThirdOrderIsSeenByWhereTheChainsLead) {
  const double s = 0.3, n_beta = 1000;
  const test::Energy deep(torch::zeros({23}, torch::kDouble), [s](const at::Tensor& w) {
    return 0.5 * w.narrow(0, 0, 20).square().sum() + 0.5 * (w[20] * w[21] * w[22] - s).square();
  });
  const auto estimate = estimate_llc(deep.problem(), at_a_saddle().n_beta(n_beta).gamma(2).burn_in(2000).draws(2000));
  EXPECT_EQ(*estimate.diagnostics.negative_curvature, 0);
  // At the least of U, w_i^2 = s^(2/3): F there is about -n beta s^2 / 2.
  EXPECT_NEAR(*estimate.diagnostics.saddle, n_beta * s * s / 2, 1);
  expect_saddle(estimate);
}

TEST(LlcSaddle, IsSeenInFp32) {
  const test::Energy narrow(torch::zeros({51}), [](const at::Tensor& w) {
    return 0.5 * w.narrow(0, 0, 50).square().sum() - 0.1 * w[50].square() + w[50].pow(4);
  });
  expect_saddle(estimate_llc(narrow.problem(), at_a_saddle().n_beta(1000).gamma(10).burn_in(200).draws(200)));
}

TEST(LlcSaddle, OfTheTiltedLossIsSeenToo) {
  const test::Energy tilted(torch::zeros({11}, torch::kDouble), [](const at::Tensor& w) {
    return 0.5 * w.narrow(0, 0, 10).square().sum() - 0.1 * w[10].square() + w[10].pow(4) + 0.3 * w.sum();
  });
  expect_saddle(estimate_llc(tilted.problem(),
                             at_a_saddle().kind(LlcKind::Tilted).n_beta(1000).gamma(10).burn_in(200).draws(200)));
}

}  // namespace
}  // namespace dds
