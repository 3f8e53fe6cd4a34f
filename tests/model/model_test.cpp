// Data, likelihoods, the guard of the caller's model, and replicas.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/model.hpp>
#include <stdexcept>

#include "src/model/guard.hpp"
#include "src/model/replica.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;

at::Generator generator(std::uint64_t seed) { return at::detail::createCPUGenerator(test::seed(seed)); }

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(Data, SizeSliceAndSelect) {
  const Data data({torch::arange(6).view({3, 2}), torch::arange(3)}, torch::arange(3) * 10);
  EXPECT_EQ(data.size(), 3);
  EXPECT_TRUE(data.slice(1, 3).targets.equal(torch::tensor({10, 20})));
  EXPECT_TRUE(data.slice(1, 3).inputs[1].is_alias_of(data.inputs[1]));
  EXPECT_TRUE(data.select(torch::tensor({2, 0, 2})).inputs[1].equal(torch::tensor({2, 0, 2})));
}

TEST(Data, WhatDoesNotFitIsRefusedByName) {
  expect_part(message_of([] { Data().size(); }), "inputs is empty");
  expect_part(message_of([] { Data(torch::ones({0, 2})).size(); }), "[0, 2], expected at least one sample");
  expect_part(message_of([] { Data(torch::ones({3}), torch::ones({4})).size(); }),
              "targets is Float [4], expected 3 samples");
  expect_part(message_of([] { Data(torch::ones({})).size(); }), "inputs[0] is Float []");
  expect_part(message_of([] { Data(torch::ones({3})).slice(2, 5); }), "end is 5, expected above 2 and at most 3");
  expect_part(message_of([] { Data(torch::ones({3})).select(torch::ones({2})); }), "indices is Float [2]");
}

/// Gradients of each sample's `values`, as rows, with respect to the output's own row.
at::Tensor rows_of_gradients(const at::Tensor& values, const at::Tensor& output) {
  return torch::autograd::grad({values.sum()}, {output}, {}, true)[0].flatten(1);
}

/// sum_k t_k' t_k'^T for sample 0.
at::Tensor fisher_of_terms(const Likelihood& likelihood, const at::Tensor& output) {
  at::Tensor fisher;
  for (std::int64_t k = 0; k < likelihood.fisher_terms(output); ++k) {
    const auto g = rows_of_gradients(likelihood.fisher_term(output, k), output)[0];
    const auto outer = torch::outer(g, g);
    fisher = fisher.defined() ? fisher + outer : outer;
  }
  return fisher;
}

at::Tensor outer_of_loss(const Likelihood& likelihood, const at::Tensor& output, const at::Tensor& target) {
  const auto g = rows_of_gradients(likelihood.loss(output, target), output)[0];
  return torch::outer(g, g);
}

TEST(Categorical, LossIsTheNegativeLogProbabilitySummedOverPositions) {
  const auto likelihood = categorical(-1);
  const auto output = torch::randn({2, 3, 4}, generator(1), torch::kDouble);
  const auto target = torch::tensor({{0, 3, -1}, {2, 2, 1}});
  const auto log_p = torch::log(torch::softmax(output, -1));
  const auto at = [&](int i, int t) { return -log_p[i][t][target[i][t].item<std::int64_t>()].item<double>(); };
  const auto loss = likelihood->loss(output, target);
  EXPECT_NEAR(loss[0].item<double>(), at(0, 0) + at(0, 1), 1e-12);
  EXPECT_NEAR(loss[1].item<double>(), at(1, 0) + at(1, 1) + at(1, 2), 1e-12);
}

TEST(Categorical, ExactFisherIsTheExpectationOverClasses) {
  const auto likelihood = categorical();
  const auto output = torch::randn({2, 5}, generator(2), torch::kDouble).requires_grad_();
  const auto p = torch::softmax(output.detach(), 1);
  at::Tensor expected = torch::zeros({5, 5}, torch::kDouble);
  for (std::int64_t c = 0; c < 5; ++c) {
    expected += p[0][c] * outer_of_loss(*likelihood, output, torch::tensor({c, c}));
  }
  EXPECT_EQ(likelihood->fisher_terms(output), 5);
  EXPECT_TRUE(torch::allclose(fisher_of_terms(*likelihood, output), expected, 1e-10, 1e-12));
  EXPECT_EQ(likelihood->fisher_terms(torch::zeros({2, 33})), 0);
  EXPECT_EQ(likelihood->fisher_terms(torch::zeros({2, 3, 5})), 0);
}

TEST(Categorical, SamplesHaveItsFrequenciesAndLeaveTheDefaultGenerator) {
  const auto output = torch::tensor({{0.0, 1.0, 2.0}}).expand({20000, 3});
  torch::manual_seed(3);
  const auto expected = torch::rand({1});
  torch::manual_seed(3);
  const auto sample = categorical()->sample(output, generator(4));
  EXPECT_TRUE(torch::rand({1}).equal(expected));
  EXPECT_EQ(sample.sizes(), at::IntArrayRef({20000}));
  const auto p = torch::softmax(output[0], 0);
  for (std::int64_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(sample.eq(c).to(torch::kDouble).mean().item<double>(), p[c].item<double>(), 0.015);
  }
  EXPECT_TRUE(sample.equal(categorical()->sample(output, generator(4))));
}

TEST(Categorical, WrongTargetsAreRefused) {
  const auto output = torch::zeros({2, 3});
  expect_part(message_of([&] { categorical()->loss(output, torch::tensor({0, 3})); }), "target is 3, expected 0 to 2");
  expect_part(message_of([&] { categorical()->loss(output, torch::tensor({0, -1})); }), "target is -1");
  expect_part(message_of([&] { categorical()->loss(output, torch::tensor({0.0, 1.0})); }), "expected Long");
  expect_part(message_of([&] { categorical()->loss(output, torch::tensor({0, 1, 2})); }), "Long [3], expected [2]");
  expect_part(message_of([&] { categorical()->loss(output, {}); }), "target is undefined");
  expect_part(message_of([&] { categorical()->loss(torch::zeros({2}), torch::tensor({0, 1})); }), "at least 2");
  EXPECT_NO_THROW(categorical()->loss(output, torch::tensor({0, -100})));
}

TEST(Bernoulli, LossFisherAndSamples) {
  const auto likelihood = bernoulli();
  const auto output = torch::randn({1, 3}, generator(5), torch::kDouble).requires_grad_();
  const auto p = torch::sigmoid(output.detach());
  const auto target = torch::tensor({{1, 0, 1}});
  const auto log_p = torch::where(target == 1, p, 1 - p).log().sum();
  EXPECT_NEAR(likelihood->loss(output, target)[0].item<double>(), -log_p.item<double>(), 1e-12);
  at::Tensor expected = torch::zeros({3, 3}, torch::kDouble);
  for (int bits = 0; bits < 8; ++bits) {
    const auto y = torch::tensor({{bits & 1, (bits >> 1) & 1, bits >> 2}});
    expected += torch::where(y == 1, p, 1 - p).prod() * outer_of_loss(*likelihood, output, y);
  }
  EXPECT_TRUE(torch::allclose(fisher_of_terms(*likelihood, output), expected, 1e-10, 1e-12));
  const auto sample = likelihood->sample(output.detach().expand({20000, 3}), generator(6));
  EXPECT_TRUE(torch::allclose(sample.mean(0), p[0], 0, 0.015));
}

TEST(Bernoulli, ConfidentLogitsKeepALossAndAFisher) {
  const auto output = torch::tensor({{60.0, -60.0}}, torch::kDouble).requires_grad_();
  EXPECT_NEAR(bernoulli()->loss(output, torch::tensor({{0.0, 1.0}}))[0].item<double>(), 120, 1e-9);
  EXPECT_GT(fisher_of_terms(*bernoulli(), output)[0][0].item<double>(), 1e-27);
}

TEST(Bernoulli, TargetsOutsideTheUnitIntervalAreRefused) {
  expect_part(message_of([] { bernoulli()->loss(torch::zeros({2}), torch::tensor({0.0, 2.0})); }), "target is 2");
  expect_part(message_of([] { bernoulli()->loss(torch::zeros({2}), torch::tensor({-1.0, 1.0})); }), "target is -1");
}

TEST(Gaussian, LossFisherAndSamples) {
  const auto likelihood = gaussian(0.5);
  EXPECT_EQ(likelihood->name(), "gaussian(0.5)");
  const auto output = torch::randn({2, 3}, generator(7), torch::kDouble).requires_grad_();
  const auto target = torch::randn({2, 3}, generator(8), torch::kDouble);
  EXPECT_TRUE(torch::allclose(likelihood->loss(output, target), (target - output).square().sum(1) / (2 * 0.25)));
  EXPECT_TRUE(torch::allclose(fisher_of_terms(*likelihood, output), torch::eye(3, torch::kDouble) / 0.25));
  const auto sample = likelihood->sample(output.detach()[0].expand({20000, 3}), generator(9));
  EXPECT_TRUE(torch::allclose(sample.mean(0), output[0], 0, 0.015));
  EXPECT_TRUE(torch::allclose(sample.std(0), torch::full({3}, 0.5, torch::kDouble), 0, 0.01));
}

TEST(Gaussian, BroadcastingTargetsAndBadSigmaAreRefused) {
  expect_part(message_of([] {
                gaussian()->loss(torch::zeros({4, 1}), torch::zeros({4}));
              }),
              "Float [4], expected [4, 1]");
  expect_part(message_of([] { gaussian(0); }), "sigma is 0");
  expect_part(message_of([] { gaussian(NAN); }), "sigma is nan");
}

TEST(CustomLikelihood, ChecksItsFunctions) {
  const auto loss = [](const at::Tensor& output, const at::Tensor& target) { return (output - target).abs().sum(1); };
  const auto custom = likelihood("laplace", loss);
  EXPECT_EQ(custom->fisher_terms(torch::zeros({2, 3})), 0);
  EXPECT_EQ(custom->loss(torch::zeros({2, 3}), torch::ones({2, 3}))[0].item<double>(), 3);
  expect_part(message_of([&] {
                custom->sample(torch::zeros({2, 3}), generator(1));
              }),
              "the sample function of 'laplace' is null");
  expect_part(message_of([&] { custom->fisher_term(torch::zeros({2, 3}), 0); }), "laplace");
  expect_part(message_of([] { likelihood("nothing", nullptr); }), "the loss of 'nothing' is null");
  const auto reduced = likelihood("mean", [](const at::Tensor& o, const at::Tensor&) { return o.mean(); });
  expect_part(message_of([&] { reduced->loss(torch::zeros({2, 3}), {}); }), "expected [2]");
}

/// Batch norm, an integer buffer that the forward writes to, and a weight registered twice.
struct TiedImpl : torch::nn::Module {
  TiedImpl() {
    first = register_module("first", torch::nn::Linear(4, 4));
    norm = register_module("norm", torch::nn::BatchNorm1d(4));
    tied = register_parameter("tied", first->weight);
    calls = register_buffer("calls", torch::zeros({1}, torch::kLong));
  }
  torch::Tensor forward(torch::Tensor x) {
    calls.add_(1);
    return torch::linear(norm->forward(first->forward(x)), tied);
  }
  torch::nn::Linear first{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::Tensor tied, calls;
};
TORCH_MODULE(Tied);

TEST(ModelGuard, SwapsInDoublePrecisionAndPutsEverythingBack) {
  Tied model;
  model->train();
  model->first->eval();
  model->first->bias.set_requires_grad(false);
  std::vector<torch::Tensor> tensors = model->parameters(), before;
  for (const auto& buffer : model->buffers()) tensors.push_back(buffer);
  ASSERT_EQ(tensors.size(), 9u);  // weight, bias; weight, bias; the tied weight; four buffers
  std::vector<void*> addresses;
  for (const auto& tensor : tensors) {
    before.push_back(tensor.detach().clone());
    addresses.push_back(tensor.data_ptr());
  }
  const auto version = model->tied._version();
  torch::manual_seed(1);
  const auto expected = torch::rand({2});
  torch::manual_seed(1);
  {
    const ModelGuard guard(*model, {.dtype = torch::kDouble});
    EXPECT_FALSE(model->is_training());
    EXPECT_TRUE(model->tied.is_same(model->first->weight));
    EXPECT_EQ(model->tied.scalar_type(), torch::kDouble);
    EXPECT_EQ(model->norm->running_mean.scalar_type(), torch::kDouble);
    EXPECT_EQ(model->calls.scalar_type(), torch::kLong);
    EXPECT_TRUE(model->first->bias.requires_grad());
    const auto output = model->forward(torch::randn({3, 4}, torch::kDouble));
    EXPECT_EQ(output.scalar_type(), torch::kDouble);
    torch::autograd::grad({output.sum()}, {model->tied});
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].scalar_type(), before[i].scalar_type());
    EXPECT_EQ(tensors[i].data_ptr(), addresses[i]);
    EXPECT_TRUE(tensors[i].equal(before[i]));
    EXPECT_FALSE(tensors[i].grad().defined());
  }
  EXPECT_EQ(model->tied._version(), version);
  EXPECT_TRUE(model->is_training());
  EXPECT_TRUE(model->norm->is_training());
  EXPECT_FALSE(model->first->is_training());
  EXPECT_FALSE(model->first->bias.requires_grad());
  EXPECT_TRUE(model->first->weight.requires_grad());
  EXPECT_TRUE(torch::rand({2}).equal(expected));
}

TEST(ModelGuard, ALiveGraphOfTheCallersStillAccumulatesThroughItsOwnNode) {
  torch::nn::Linear model(2, 1);
  const auto loss = model->forward(torch::ones({1, 2})).sum();
  const auto node = torch::autograd::impl::try_get_grad_accumulator(model->weight);
  { const ModelGuard guard(*model, {.dtype = torch::kDouble}); }
  EXPECT_EQ(torch::autograd::impl::try_get_grad_accumulator(model->weight), node);
  loss.backward();
  EXPECT_TRUE(model->weight.grad().equal(torch::ones({1, 2})));
}

// What a forward writes: an Embedding with max_norm its weight, which is tied here, others a weight or a buffer.
TEST(ModelGuard, PutsBackWhatAForwardWritesInPlace) {
  for (const bool converts : {false, true}) {
    torch::nn::Embedding model(torch::nn::EmbeddingOptions(5, 3).max_norm(1));
    model->weight.set_data(torch::randn({5, 3}) * 10);
    const auto tied = model->register_parameter("tied", model->weight.detach());
    const auto scale = model->register_parameter("scale", torch::ones({3}, torch::kComplexFloat));
    const auto count = model->register_parameter("count", torch::zeros({2}, torch::kLong), false);
    const auto mean = model->register_buffer("mean", torch::ones({3}));
    mean[1] = std::nan("");
    const auto loss = (model->weight.square().sum() + torch::abs(scale).sum()) * mean[0];
    std::vector<at::Tensor> before;
    const std::vector<at::Tensor> all{model->weight, tied, scale, count, mean};
    for (const auto& tensor : all) before.push_back(tensor.detach().clone());
    const void* address = model->weight.data_ptr();
    const auto version = model->weight._version();
    {
      GuardOptions options;
      if (converts) options.dtype = torch::kDouble;
      const ModelGuard guard(*model, options);
      EXPECT_EQ(scale.scalar_type(), converts ? torch::kComplexDouble : torch::kComplexFloat);
      model->forward(torch::arange(5));
      EXPECT_LE(model->weight.norm(2, 1).max().item<double>(), 1.001);
      const torch::NoGradGuard no_grad;
      scale.mul_(3);
      count.add_(1);
      mean.zero_();
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].scalar_type(), before[i].scalar_type());
      EXPECT_TRUE(torch::allclose(all[i], before[i], 0, 0, /*equal_nan=*/true)) << i;
    }
    EXPECT_EQ(model->weight.data_ptr(), address);
    EXPECT_EQ(tied.data_ptr(), address);
    EXPECT_EQ(model->weight._version(), version);
    loss.backward();  // does not find its tensors written to
    EXPECT_TRUE(torch::equal(model->weight.grad(), 2 * before[0]));
  }
}

TEST(ModelGuard, PutsGradientsBackThatAForwardAddsTo) {
  torch::nn::Linear model(3, 2);
  model->bias.set_requires_grad(false);
  model->weight.mutable_grad() = torch::full({2, 3}, 7.0);
  const void* const grad = model->weight.grad().unsafeGetTensorImpl();
  for (const bool converts : {false, true}) {
    {
      GuardOptions options;
      if (converts) options.dtype = torch::kDouble;
      const ModelGuard guard(*model, options);
      model(torch::ones({4, 3}, model->weight.options().requires_grad(false))).sum().backward();
      EXPECT_TRUE(model->bias.grad().defined());  // which wants a gradient meanwhile
    }
    EXPECT_EQ(model->weight.grad().unsafeGetTensorImpl(), grad);
    EXPECT_TRUE(model->weight.grad().eq(7.0).all().item<bool>());
    EXPECT_FALSE(model->bias.grad().defined());
  }
}

TEST(ModelGuard, PutsEverythingBackWhenAnExceptionPasses) {
  torch::nn::Linear model(2, 1);
  const auto before = model->weight.detach().clone();
  EXPECT_THROW(
      {
        const ModelGuard guard(*model, {.dtype = torch::kDouble});
        throw std::runtime_error("inside");
      },
      std::runtime_error);
  EXPECT_TRUE(model->is_training());
  EXPECT_TRUE(model->weight.equal(before));
}

TEST(ModelGuard, AModelOnTheStackAndNestedGuardsWork) {
  torch::nn::LinearImpl model(2, 1);
  {
    const ModelGuard outer(model);
    const ModelGuard inner(model, {.dtype = torch::kDouble});
    EXPECT_EQ(model.weight.scalar_type(), torch::kDouble);
  }
  EXPECT_EQ(model.weight.scalar_type(), torch::kFloat);
  EXPECT_TRUE(model.is_training());
}

TEST(Replica, WeightsMoveTheModelAndTiedOnesCountOnce) {
  Tied model;
  const ModelGuard guard(*model);
  const auto names = trainable_parameters(*model);
  Replica replica(model.ptr(), forward_of<TiedImpl>(), names);
  EXPECT_EQ(replica.weights().numel(), 16 + 4 + 8);
  EXPECT_TRUE(model->tied.is_alias_of(replica.weights()));
  const auto x = torch::ones({2, 4});
  const auto before = replica.output({x});
  replica.weights().add_(0.5);
  EXPECT_FALSE(replica.output({x}).equal(before));
  const auto parts =
      torch::autograd::grad({replica.output({x}).square().sum()}, model->parameters(), {}, false, false, true);
  const auto flat = replica.gradient(replica.output({x}).square().sum());
  EXPECT_EQ(flat.numel(), replica.weights().numel());
  EXPECT_NEAR(
      flat.norm().item<double>(),
      [&] {
        double squares = 0;
        const auto parameters = model->parameters();
        for (std::size_t i = 0; i < parts.size(); ++i) {
          bool seen = false;
          for (std::size_t j = 0; j < i; ++j) seen = seen || parameters[j].is_same(parameters[i]);
          if (!seen) squares += parts[i].square().sum().item<double>();
        }
        return std::sqrt(squares);
      }(),
      1e-3 * flat.norm().item<double>());
  ASSERT_EQ(model->parameters().size(), 5u);
  for (const auto& parameter : model->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(Replica, MixedTypesAndModelsWithoutParametersAreRefused) {
  torch::nn::Sequential model(torch::nn::Linear(2, 2), torch::nn::Linear(2, 2));
  model->ptr(1)->to(torch::kDouble);
  expect_part(message_of([&] { Replica(model.ptr(), nullptr, trainable_parameters(*model)); }), "'1.weight'");
  torch::nn::ReLU empty;
  expect_part(message_of([&] { Replica(empty.ptr(), nullptr, trainable_parameters(*empty)); }),
              "expected at least one");
}

TEST(Replica, ClonesAndBuiltModelsHaveTheSameWeights) {
  torch::nn::Sequential model(torch::nn::Linear(3, 2), torch::nn::BatchNorm1d(2));
  const auto make = [] { return torch::nn::Sequential(torch::nn::Linear(3, 2), torch::nn::BatchNorm1d(2)).ptr(); };
  for (const auto& other : {clone_model(*model), build_model(make, *model)}) {
    ASSERT_TRUE(other);
    EXPECT_FALSE(other->is_training());
    ASSERT_EQ(other->named_parameters().size(), 4u);
    for (const auto& item : model->named_parameters()) {
      EXPECT_TRUE(other->named_parameters()[item.key()].equal(item.value()));
      EXPECT_FALSE(other->named_parameters()[item.key()].is_alias_of(item.value()));
    }
  }
  Tied tied;
  EXPECT_FALSE(clone_model(*tied));
  const auto wrong = [] { return torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4)).ptr(); };
  expect_part(message_of([&] { build_model(wrong, *model); }),
              "'0.weight' is Float [4, 3], expected the model's Float [2, 3]");
  expect_part(message_of([&] { build_model([&] { return model.ptr(); }, *model); }), "the model itself");
}

}  // namespace
}  // namespace dds
