#include "experiments/modular_addition/fourier.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "experiments/harness/networks.hpp"
#include "tests/support.hpp"

namespace modular_addition {
namespace {

using dds::test::orthonormal;

class Modulus : public testing::TestWithParam<std::int64_t> {};

TEST_P(Modulus, BasisIsOrthonormalAndWithoutAConstant) {
  const torch::Tensor basis = fourier_basis(GetParam());
  EXPECT_LT((basis.matmul(basis.t()) - torch::eye(GetParam() - 1, torch::kDouble)).abs().max().item<double>(), 1e-13);
  EXPECT_LT(basis.sum({1}).abs().max().item<double>(), 1e-12);
}

// Logits sum_k w_k cos(2 pi k (a + b - c) / p + phase_k), plus what softmax does not see and modes of other kinds.
TEST_P(Modulus, PowerOfPlantedFrequenciesIsWhatWasPlanted) {
  const std::int64_t p = GetParam();
  const torch::Tensor a = torch::arange(p, torch::kDouble).view({p, 1, 1}), b = a.view({1, p, 1}),
                      c = a.view({1, 1, p});
  const auto wave = [&](double k, double sign) {
    return (2 * std::numbers::pi * k / static_cast<double>(p) * (a + sign * b - c) + 0.3 * k).cos();
  };
  const torch::Tensor planted = 3 * wave(1, 1) + wave(2, 1) + 2 * wave(1, -1) + 5 * (a + 2 * b);
  const std::vector<double> power = logit_power(planted.reshape({p * p, p}));
  ASSERT_EQ(std::ssize(power), (p - 1) / 2);
  EXPECT_NEAR(power[0], 9.0 / 14, 1e-12);  // amplitudes 3, 1 and 2 have squares 9, 1 and 4
  EXPECT_NEAR(power[1], 1.0 / 14, 1e-12);
  for (std::size_t k = 2; k < power.size(); ++k) EXPECT_NEAR(power[k], 0, 1e-12) << k;
}

INSTANTIATE_TEST_SUITE_P(Primes, Modulus, testing::Values(5, 7, 13));

TEST(Modes, LearnedAreTheFewestThatHoldAlmostAll) {
  Modes modes;
  modes.logit_power = {0.01, 0.5, 0.0, 0.3, 0.02, 0.15};
  EXPECT_THAT(modes.learned(), testing::ElementsAre(false, true, false, true, false, true));
  modes.logit_power = {0, 0.7, 0};
  EXPECT_THAT(modes.learned(), testing::ElementsAre(false, true, false));
}

TEST(Modes, DeadRowsAreThoseOfThePlantedSpectrum) {
  torch::manual_seed(0);
  constexpr std::int64_t n = 30, d = 6;
  const torch::Tensor values = torch::tensor({1.0, 0.5, 0.2, 1e-3, 1e-4, 0.0}, torch::kDouble);
  const torch::Tensor v = orthonormal(d, d);
  const torch::Tensor matrix = (orthonormal(n, d) * values).matmul(v.t());
  const torch::Tensor dead = dead_rows(matrix, 1e-3);
  ASSERT_EQ(dead.size(0), 3);
  EXPECT_LT(dead.matmul(v.slice(1, 0, 3)).abs().max().item<double>(), 1e-9);
  EXPECT_EQ(dead_rows(matrix, 1e-20).size(0), 1);
  EXPECT_EQ(dead_rows(matrix.slice(0, 0, 4), 1e-20).size(0), 2);  // fewer rows than columns
}

// A network whose tokens reach resid_mid through two frequencies alone: their shares add up to one, and directions that
// no token reaches hold nothing of them.
TEST(Modes, OfANetworkWithTwoFrequencies) {
  constexpr std::int64_t p = 11, width = 16;
  torch::manual_seed(0);
  Transformer model(p, width);
  auto generator = dds::experiments::generator_of(0);
  dds::experiments::initialise(*model, generator);
  {
    const torch::NoGradGuard no_grad;
    const torch::Tensor basis = fourier_basis(p).slice(0, 2, 6).to(torch::kFloat);  // frequencies 2 and 3
    model->embed->weight.zero_();
    model->embed->weight.slice(0, 0, p).copy_(basis.t().matmul(torch::randn({4, width}, generator)));
  }
  const torch::Tensor a = torch::arange(p, torch::kLong).repeat_interleave(p),
                      b = torch::arange(p, torch::kLong).repeat({p});
  const torch::Tensor tokens = torch::stack({a, b, torch::full_like(a, p)}, 1), sums = (a + b).remainder(p);
  const Modes modes = modes_of(model, tokens, sums, torch::arange(p * p, torch::kLong));
  ASSERT_EQ(modes.stream_power.size(), 5u);
  EXPECT_NEAR(modes.stream_power[1] + modes.stream_power[2], 1, 1e-9);
  EXPECT_NEAR(std::accumulate(modes.stream_power.begin(), modes.stream_power.end(), 0.0), 1, 1e-12);
  EXPECT_LE(std::accumulate(modes.logit_power.begin(), modes.logit_power.end(), 0.0), 1);
  // Four dimensions of tokens and the pattern's own: the rest of the activations is dead, and holds none of the modes.
  EXPECT_GT(modes.dead_activation_dimension, 0.2);
  EXPECT_LT(modes.dead_activation[1], 0.02);
  EXPECT_LT(modes.dead_activation[2], 0.02);
}

}  // namespace
}  // namespace modular_addition
