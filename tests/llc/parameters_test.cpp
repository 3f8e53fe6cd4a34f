// estimate_llc on parameters that are no dense real tensors.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>

#include "src/model/random.hpp"
#include "src/model/replica.hpp"
#include "tests/seed.hpp"

namespace dds {
namespace {

LlcOptions of_few_weights() {
  return LlcOptions().threads(1).seed(test::seed(41)).chains(4).n_beta(1000).gamma(1).burn_in(500).draws(2000);
}

/// out = Re(w z) + b, with an odd number of real weights before w.
struct ComplexLine : torch::nn::Module {
  explicit ComplexLine(torch::Dtype type) {
    b = register_parameter("b", torch::full({1}, 0.5, type));
    w = register_parameter("w", torch::complex(torch::ones({1}, type), torch::full({1}, 2.0, type)));
  }
  at::Tensor b, w;
};

const Forward kComplexLine = [](torch::nn::Module& module, const std::vector<at::Tensor>& z) {
  auto& line = dynamic_cast<ComplexLine&>(module);
  return torch::real(line.w * z[0]) + line.b;
};

/// z takes 1, -1, i and -i: out has three directions of curvature 1/2, 1/2 and 1.
Data circle(torch::Dtype type) {
  const auto z = torch::complex(torch::tensor({1., -1., 0., 0.}, type), torch::tensor({0., 0., 1., -1.}, type));
  return {z.unsqueeze(1), (torch::real(z) - 2 * torch::imag(z) + 0.5).unsqueeze(1)};
}

double expected_lambda() { return 500.0 / 501 + 0.5 * 1000 / 1001; }

TEST(LlcComplex, APartOfAComplexWeightCountsAsAWeight) {
  for (const auto type : {torch::kDouble, torch::kFloat}) {
    ComplexLine model(type);
    const auto before = model.w.detach().clone();
    const auto estimate = estimate_llc({model, gaussian(), circle(type), kComplexLine}, of_few_weights());
    EXPECT_EQ(estimate.settings.parameters, 3);
    EXPECT_TRUE(estimate.converged()) << estimate.verdict();
    test::expect_near(*estimate.lambda, expected_lambda(), *estimate.standard_error);
    EXPECT_NEAR(estimate.diagnostics.mu_max, 1, 0.05);
    EXPECT_TRUE(model.w.equal(before));
  }
}

TEST(LlcComplex, Fp64TakesComplexWeightsAlong) {
  ComplexLine model(torch::kFloat);
  const auto estimate =
      estimate_llc({model, gaussian(), circle(torch::kFloat), kComplexLine}, of_few_weights().fp64(true));
  test::expect_near(*estimate.lambda, expected_lambda(), *estimate.standard_error);
  EXPECT_EQ(model.w.scalar_type(), torch::kComplexFloat);
}

TEST(LlcComplex, AGradientIsThatByRealAndImaginaryParts) {
  ComplexLine model(torch::kDouble);
  Replica replica(std::shared_ptr<torch::nn::Module>(&model, [](auto*) {}), kComplexLine, trainable_parameters(model));
  // loss = sum (Re(w z) + b)^2 / 2, at z = 3 - i: Re(w z) = 3 wr + wi.
  const auto z = torch::complex(torch::tensor({3.}, torch::kDouble), torch::tensor({-1.}, torch::kDouble));
  const auto loss = [&] { return replica.output({z}).square().sum() / 2; };
  const double out = 3 * 1 + 2 + 0.5;
  const auto gradient = replica.gradient(loss(), 1, Replica::Graph::Differentiable);
  EXPECT_TRUE(gradient.detach().allclose(torch::tensor({3 * out, out, out}, torch::kDouble)));
  const auto curvature = replica.gradient(gradient.dot(torch::tensor({1., 0., 0.}, torch::kDouble)));
  EXPECT_TRUE(curvature.allclose(torch::tensor({9., 3., 3.}, torch::kDouble)));
  // Moving the vector moves the model.
  replica.weights().copy_(torch::tensor({0., 1., 0.}, torch::kDouble));
  EXPECT_DOUBLE_EQ(replica.output({z}).item<double>(), 1);
}

TEST(LlcComplex, AConjugatedOrNegatedGradientIsRead) {
  // Im(conj(z)) leaves a gradient with its sign still to be taken.
  struct Both : torch::nn::Module {
    Both() { w = register_parameter("w", torch::ones({2}, torch::kDouble)); }
    at::Tensor w;
  } model;
  const Forward forward = [](torch::nn::Module& module, const std::vector<at::Tensor>& x) {
    const auto& w = dynamic_cast<Both&>(module).w;
    return torch::imag(torch::complex(x[0] * 0, w.expand({x[0].size(0), 2})).conj()).sum(1, true);
  };
  const auto x = torch::zeros({3, 2}, torch::kDouble);
  const auto estimate =
      estimate_llc({model, gaussian(), Data(x, torch::full({3, 1}, -2.0, torch::kDouble)), forward}, of_few_weights());
  test::expect_near(*estimate.lambda, 0.5 * 2000 / 2001, *estimate.standard_error);
}

TEST(LlcSparse, ASparseEmbeddingIsAsADenseOne) {
  const Data data(torch::tensor({0, 1, 2, 1}, torch::kLong), torch::zeros({4, 2}));
  std::vector<double> lambdas, curvatures;
  for (const bool sparse : {false, true}) {
    torch::nn::Embedding model(torch::nn::EmbeddingOptions(4, 2).sparse(sparse));
    const torch::NoGradGuard no_grad;
    model->weight.zero_();
    const auto estimate = estimate_llc({*model, gaussian(), data}, of_few_weights().gamma(20));
    lambdas.push_back(*estimate.lambda);
    curvatures.push_back(estimate.diagnostics.mu_max);
    test::expect_near(*estimate.lambda, 500.0 / 520 + 2 * 250.0 / 270, *estimate.standard_error);
    EXPECT_TRUE(estimate.converged()) << estimate.verdict();
  }
  EXPECT_NEAR(curvatures[1], 0.5, 0.02);
  EXPECT_NEAR(curvatures[0], 0.5, 0.02);
}

}  // namespace
}  // namespace dds
