// Likelihoods over the whole range of their dtypes, against closed forms in long double.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/model.hpp>
#include <functional>
#include <limits>
#include <vector>

#include "tests/seed.hpp"

namespace dds {
namespace {

using Real = long double;

double epsilon(at::ScalarType type) {
  return type == at::kFloat ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
}

/// Below it a number has fewer digits.
double smallest(at::ScalarType type) {
  return type == at::kFloat ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min();
}

/// Within `roundings` of the type.
void expect_rounded(double value, Real exact, at::ScalarType type, double roundings) {
  const double bound = roundings * epsilon(type) * (std::abs(static_cast<double>(exact)) + smallest(type));
  EXPECT_NEAR(value, static_cast<double>(exact), bound);
}

Real log_one_plus_exp(Real x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }

Real logistic(Real x) { return 1 / (1 + expl(-x)); }

/// -log p and its slope at the logits (n, ...), one sample a row.
struct Value {
  at::Tensor loss, slope;
};

Value value_of(const Likelihood& likelihood, const at::Tensor& output, const at::Tensor& target) {
  const auto z = output.detach().clone().requires_grad_();
  const auto loss = likelihood.loss(z, target);
  return {loss.detach(), torch::autograd::grad({loss.sum()}, {z})[0]};
}

class AnyDtype : public testing::TestWithParam<at::ScalarType> {};

INSTANTIATE_TEST_SUITE_P(Types, AnyDtype, testing::Values(at::kFloat, at::kDouble),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

const std::vector<double> kLogits = {0, 1e-6, 0.3, 1, 4, 10, 15, 19.9, 20.1, 25, 30, 36, 39.9, 40.1, 60, 85, 300, 700};

TEST_P(AnyDtype, BernoulliIsExactToRoundingAtAnyLogit) {
  for (const double size : kLogits) {
    for (const double z : {size, -size}) {
      for (const double y : {0.0, 1.0, 0.25, 0.75, 0.5, 0x1p-20, 1 - 0x1p-20}) {
        SCOPED_TRACE(testing::Message() << "z " << z << ", y " << y);
        const auto output = torch::full({1}, z, GetParam());
        const Real x = output.to(torch::kDouble).item<double>();
        const auto value = value_of(*bernoulli(), output, torch::full({1}, y, torch::kDouble));
        expect_rounded(value.loss.item<double>(), Real(y) * log_one_plus_exp(-x) + Real(1 - y) * log_one_plus_exp(x),
                       GetParam(), 4);
        const double slope = value.slope.item<double>();
        if (y == 0) expect_rounded(slope, logistic(x), GetParam(), 4);
        if (y == 1) expect_rounded(slope, -logistic(-x), GetParam(), 4);
        // A difference of two probabilities in any case.
        EXPECT_NEAR(slope, double(logistic(x) - Real(y)), 4 * epsilon(GetParam()));
        if (y == 0.5) continue;
        const auto mirrored = value_of(*bernoulli(), -output, torch::full({1}, 1 - y, torch::kDouble));
        EXPECT_EQ(mirrored.loss.item<double>(), value.loss.item<double>());
        EXPECT_EQ(mirrored.slope.item<double>(), -slope);
      }
    }
  }
}

TEST(BernoulliRange, AnInfiniteLogitIsSure) {
  const auto z = torch::tensor({double{INFINITY}, double{-INFINITY}}, torch::kDouble);
  const auto right = value_of(*bernoulli(), z, torch::tensor({1.0, 0.0}));
  EXPECT_TRUE(right.loss.equal(torch::zeros({2}, torch::kDouble))) << right.loss;
  EXPECT_TRUE(right.slope.eq(0).all().item<bool>()) << right.slope;
  EXPECT_TRUE(bernoulli()->loss(z, torch::tensor({0.0, 1.0})).isinf().all().item<bool>());
}

TEST_P(AnyDtype, TheFisherOfBernoulliIsExactAndSymmetric) {
  for (const double size : kLogits) {
    if (GetParam() == at::kFloat && size > 170) continue;  // e^-85 is about the smallest number there
    const auto z = torch::tensor({{size, -size}}, GetParam()).requires_grad_();
    for (const std::int64_t k : {0, 1}) {
      const auto g = torch::autograd::grad({bernoulli()->fisher_term(z, k).sum()}, {z})[0][0][k].item<double>();
      const Real x = z[0][0].item<double>();
      expect_rounded(g, expl(-x / 2) / (1 + expl(-x)), GetParam(), 4);
    }
  }
}

TEST_P(AnyDtype, CategoricalIsExactToRoundingWhateverTheConfidence) {
  for (const double size : kLogits) {
    if (GetParam() == at::kFloat && size > 85) continue;  // e^-size is no number there
    for (const std::vector<double>& logits : {std::vector<double>{size, 0}, {0, size, 0.5 * size, -1, 0.25}}) {
      const auto z = torch::tensor(logits, torch::kDouble).to(GetParam());
      const auto classes = static_cast<std::int64_t>(logits.size());
      const auto x = [&](std::int64_t c) { return Real(z[c].item<double>()); };
      for (std::int64_t y = 0; y < classes; ++y) {
        SCOPED_TRACE(testing::Message() << "largest logit " << size << " of " << classes << ", target " << y);
        Real others = 0, all = 0;  // sums of e^(x_c - x_y), and of e^x_c
        for (std::int64_t c = 0; c < classes; ++c) {
          if (c != y) others += expl(x(c) - x(y));
          all += expl(x(c));
        }
        const auto value = value_of(*categorical(), z.unsqueeze(0), torch::full({1}, y, torch::kLong));
        // A logit's own rounding is one of the loss.
        const double roundings = 4 + 2 * size;
        expect_rounded(value.loss.item<double>(), log1pl(others), GetParam(), roundings);
        for (std::int64_t c = 0; c < classes; ++c) {
          const Real slope = c == y ? -others / (1 + others) : expl(x(c)) / all;
          expect_rounded(value.slope[0][c].item<double>(), slope, GetParam(), roundings);
        }
      }
    }
  }
}

TEST(CategoricalRange, TwoClassesAreABernoulli) {
  const auto z = torch::linspace(-50, 50, 41, torch::kDouble);
  const auto two = torch::stack({torch::zeros_like(z), z}, 1);
  for (const std::int64_t y : {0, 1}) {
    const auto of_two = value_of(*categorical(), two, torch::full({41}, y, torch::kLong));
    const auto of_one = value_of(*bernoulli(), z, torch::full({41}, y, torch::kDouble));
    EXPECT_TRUE(torch::allclose(of_two.loss, of_one.loss, 1e-13, 0));
    EXPECT_TRUE(torch::allclose(of_two.slope.select(1, 1), of_one.slope, 1e-13, 0));
    EXPECT_TRUE(torch::allclose(of_two.slope.select(1, 0), -of_one.slope, 1e-13, 0));
  }
}

TEST(CategoricalRange, TheFisherOfSureClassesIsExact) {
  // diag(p) - p p^T of two classes: p (1 - p) times (1, -1; -1, 1).
  for (const double size : {5.0, 25.0, 60.0, 300.0}) {
    const auto z = torch::tensor({{0.0, size}}, torch::kDouble).requires_grad_();
    auto fisher = torch::zeros({2, 2}, torch::kDouble);
    for (std::int64_t k = 0; k < 2; ++k) {
      const auto g = torch::autograd::grad({categorical()->fisher_term(z, k).sum()}, {z})[0][0];
      fisher += torch::outer(g, g);
    }
    const double expected = std::exp(-size) / std::pow(1 + std::exp(-size), 2);
    EXPECT_TRUE(torch::allclose(fisher / expected, torch::tensor({{1.0, -1.0}, {-1.0, 1.0}}, torch::kDouble), 1e-12, 0))
        << size << fisher / expected;
  }
}

TEST(CategoricalRange, CurvatureIsThatOfTheSoftmax) {
  for (const double size : {0.0, 3.0, 30.0}) {
    const auto z = torch::tensor({{0.0, size, -1.0}}, torch::kDouble).requires_grad_();
    for (const std::int64_t y : {0, 1}) {
      const auto loss = categorical()->loss(z, torch::full({1}, y, torch::kLong)).sum();
      const auto g = torch::autograd::grad({loss}, {z}, {}, true, true)[0][0];
      const auto p = torch::softmax(z.detach()[0], 0);
      const auto expected = torch::diag(p) - torch::outer(p, p);
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto row = torch::autograd::grad({g[c]}, {z}, {}, true)[0][0];
        EXPECT_TRUE(torch::allclose(row, expected[c], 1e-6, 1e-15)) << row << expected[c];
      }
    }
  }
}

TEST(CategoricalRange, ImpossibleAndIgnoredClassesAddNothing) {
  const auto z = torch::tensor({{1.0, double{-INFINITY}, 2.0}, {0.5, 0.0, 1.0}}, torch::kDouble);
  const auto value = value_of(*categorical(1), z, torch::tensor({2, 1}));
  EXPECT_NEAR(value.loss[0].item<double>(), std::log1p(std::exp(-1.0)), 1e-15);
  EXPECT_EQ(value.slope[0][1].item<double>(), 0);
  EXPECT_EQ(value.loss[1].item<double>(), 0);
  EXPECT_TRUE(value.slope[1].eq(0).all().item<bool>());
  const auto alone = value_of(*categorical(), torch::full({1, 1}, 3.0, torch::kDouble), torch::tensor({0}));
  EXPECT_EQ(alone.loss.item<double>(), 0);
  EXPECT_EQ(alone.slope.item<double>(), 0);
}

TEST_P(AnyDtype, GaussianKeepsTheRangeOfItsQuotient) {
  const double far = GetParam() == at::kFloat ? 1e-25 : 1e-200;
  for (const double sigma : {far, 1e-9, 0.1, 1.0, 30.0, 1e9, 1 / far}) {
    SCOPED_TRACE(sigma);
    const auto output = torch::full({1, 2}, 3 * sigma, GetParam()), target = torch::zeros({1, 2}, GetParam());
    const Real f = output[0][0].item<double>(), r = f / sigma;
    const auto value = value_of(*gaussian(sigma), output, target);
    expect_rounded(value.loss.item<double>(), r * r, GetParam(), 4);  // half the square, twice
    expect_rounded(value.slope[0][0].item<double>(), r / sigma, GetParam(), 4);
    expect_rounded(gaussian(sigma)->divergence(output, target).item<double>(), r * r, GetParam(), 4);
    EXPECT_NEAR(
        gaussian(sigma)->cancelling_terms(output, false).item<double>() / double(std::sqrt(Real(2)) * r / sigma), 1,
        1e-6);
  }
}

TEST_P(AnyDtype, DivergenceOfBernoulliHasNoHole) {
  // KL(p* || p) = p* log(p*/p) + (1 - p*) log((1 - p*)/(1 - p)), of sure predictions against an even one: log 2.
  for (const double size : {50.0, 95.0, 500.0}) {
    const auto sure = torch::tensor({size, -size}, GetParam()), even = torch::zeros({2}, GetParam());
    const auto kl = bernoulli()->divergence(sure, even);
    for (const std::int64_t i : {0, 1}) EXPECT_NEAR(kl[i].item<double>(), std::log(2.0), 16 * epsilon(GetParam()));
    const auto back = bernoulli()->divergence(even, sure);  // size/2 - log 2
    for (const std::int64_t i : {0, 1})
      EXPECT_NEAR(back[i].item<double>(), size / 2 - std::log(2.0), size * epsilon(GetParam()));
  }
}

TEST(BernoulliRange, RareLabelsAreDrawnAlikeOnBothSides) {
  // In bfloat16 1 - p is rounded to 0 or 2^-8 where it is 0.0025.
  const std::int64_t n = 400000;
  const auto z = torch::tensor({6.0, -6.0}).to(torch::kBFloat16).expand({n, 2});
  const auto drawn = bernoulli()->sample(z, at::detail::createCPUGenerator(test::seed(1)));
  EXPECT_EQ(drawn.scalar_type(), torch::kBFloat16);
  const double p = 1 / (1 + std::exp(6.0)), spread = std::sqrt(p / double(n));
  const auto rare = torch::stack({1 - drawn.select(1, 0).to(torch::kDouble), drawn.select(1, 1).to(torch::kDouble)});
  for (const std::int64_t side : {0, 1}) EXPECT_NEAR(rare[side].mean().item<double>(), p, 4.5 * spread);
}

}  // namespace
}  // namespace dds
