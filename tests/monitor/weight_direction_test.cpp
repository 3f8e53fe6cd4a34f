// Orders of directions in the weights of torch::nn models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/directions.hpp>
#include <dds/recorder.hpp>
#include <dds/weight_direction.hpp>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;

/// Three layers, 6-7-5-3: 107 weights. Trained for a while on a smooth target, so that it is no random network.
template <class Activation>
struct ThreeLayers : torch::nn::Module {
  explicit ThreeLayers(int steps = 0, std::uint64_t seed = 1) {
    torch::manual_seed(test::seed(seed));
    first = register_module("first", torch::nn::Linear(6, 7));
    second = register_module("second", torch::nn::Linear(7, 5));
    third = register_module("third", torch::nn::Linear(5, 3));
    const at::Tensor x = torch::randn({200, 6}), y = torch::sin(x.narrow(1, 0, 3)) + x.narrow(1, 3, 3).abs();
    torch::optim::Adam optimizer(parameters(), 1e-2);
    for (int i = 0; i < steps; ++i) {
      optimizer.zero_grad();
      torch::mse_loss(forward(x), y).backward();
      optimizer.step();
    }
  }
  at::Tensor forward(const at::Tensor& x) {
    Activation activation;
    return third(activation(second(activation(first(x)))));
  }
  torch::nn::Linear first{nullptr}, second{nullptr}, third{nullptr};
};
using ReluLayers = ThreeLayers<torch::nn::ReLU>;
using TanhLayers = ThreeLayers<torch::nn::Tanh>;

Data probe(std::int64_t n = 80) {
  torch::manual_seed(test::seed(77));
  return Data(torch::randn({n, 6}));
}

WeightDirection random_direction(const torch::nn::Module& net) {
  WeightDirection direction;
  for (const auto& parameter : net.named_parameters())
    direction[parameter.key()] = torch::randn(parameter.value().sizes());
  return direction;
}

// w -> w e^-s, a -> a e^s for unit 5 of the first layer: the orbit bends, and its tangent is (-w, -b, a).
TEST(WeightDirection, RescalingAReluUnitIsAGaugeAmongAHundredWeights) {
  ReluLayers net(300);
  WeightDirection tangent{{"first.weight", torch::zeros({7, 6})},
                          {"first.bias", torch::zeros({7})},
                          {"second.weight", torch::zeros({5, 7})}};
  tangent["first.weight"][5] = -net.first->weight[5].detach();
  tangent["first.bias"][5] = -net.first->bias[5].detach();
  tangent["second.weight"].select(1, 5) = net.second->weight.select(1, 5).detach();
  const DirectionOrder found = direction_order({net, gaussian(), probe()}, tangent);
  EXPECT_EQ(to_string(found.kind), "gauge") << found.reason << found.order.value_or(0);
  EXPECT_TRUE(found.followed);
  EXPECT_NEAR(found.straight_order.value_or(0), 2, 0.2);
  EXPECT_EQ(to_string(direction_order({net, gaussian(), probe()}, random_direction(net)).kind), "regular");
}

class Networks : public testing::TestWithParam<int> {};

TEST_P(Networks, ADeadInputAxisLeavesItsWeightsFree) {
  TanhLayers net(GetParam());
  Data data = probe();
  data.inputs[0].select(1, 4).zero_();
  at::Tensor axis = torch::zeros({1, 6}, torch::kDouble);
  axis[0][4] = 1;
  const WeightImage image(Side::Input, axis);
  for (const LikelihoodPtr& likelihood : {categorical(), bernoulli(), gaussian(0.3)}) {
    const WeightDirection direction{{"first.weight", image.project(torch::randn({7, 6}))}};
    const DirectionOrder found = direction_order({net, likelihood, data}, direction);
    EXPECT_EQ(to_string(found.kind), "gauge") << likelihood->name() << found.reason;
    EXPECT_EQ(to_string(direction_order({net, likelihood, data}, {{"first.weight", torch::randn({7, 6})}}).kind),
              "regular");
  }
}

// A unit without outgoing weights: its incoming ones move nothing.
TEST_P(Networks, AnUnreadUnitLeavesItsWeightsFree) {
  TanhLayers net(GetParam());
  {
    const torch::NoGradGuard no_grad;
    net.second->weight.select(1, 3).zero_();
  }
  WeightDirection direction{{"first.weight", torch::zeros({7, 6})}};
  direction["first.weight"][3] = torch::randn({6});
  EXPECT_EQ(to_string(direction_order({net, gaussian(0.1), probe()}, direction).kind), "gauge");
}

TEST_P(Networks, ShiftsOfLogitsAreAGaugeOfTheSoftmaxOnly) {
  TanhLayers net(GetParam());
  const WeightDirection shift{{"third.bias", torch::ones({3})}};
  EXPECT_EQ(to_string(direction_order({net, categorical(), probe()}, shift).kind), "gauge");
  EXPECT_EQ(to_string(direction_order({net, gaussian(), probe()}, shift).kind), "regular");
  EXPECT_EQ(to_string(direction_order({net, bernoulli(), probe()}, shift).kind), "regular");
}

INSTANTIATE_TEST_SUITE_P(StepsTrained, Networks, testing::Values(0, 300));

// The same network written as a function of one vector.
TEST(WeightDirection, IsDirectionOrderOfTheFlatNetwork) {
  TanhLayers net(50);
  const Data data = probe();
  const WeightDirection direction = random_direction(net);
  const at::Tensor x = data.inputs[0].to(torch::kDouble);
  const auto flat = [](const auto& tensors) {
    std::vector<at::Tensor> parts;
    for (const auto& tensor : tensors) parts.push_back(tensor.detach().to(torch::kDouble).reshape({-1}));
    return torch::cat(parts);
  };
  const auto output = [x](const at::Tensor& w) {
    const auto layer = [&](const at::Tensor& input, std::int64_t at, std::int64_t in, std::int64_t out) {
      return torch::addmm(w.narrow(0, at + in * out, out), input, w.narrow(0, at, in * out).view({out, in}).t());
    };
    return layer(torch::tanh(layer(torch::tanh(layer(x, 0, 6, 7)), 49, 7, 5)), 89, 5, 3);
  };
  std::vector<at::Tensor> parts;
  for (const auto& parameter : net.named_parameters()) parts.push_back(direction.at(parameter.key()));
  const at::Tensor point = flat(net.parameters());
  for (const bool softmax : {false, true}) {
    const DirectionOrder expected = direction_order(
        softmax ? categorical_excess(output, point) : gaussian_excess(output, point), point, flat(parts));
    const DirectionOrder found = direction_order({net, softmax ? categorical() : gaussian(), data}, direction);
    EXPECT_EQ(to_string(found.kind), to_string(expected.kind));
    ASSERT_EQ(found.points.size(), expected.points.size());
    for (std::size_t i = 0; i < found.points.size(); ++i) {
      EXPECT_NEAR(found.points[i].straight / expected.points[i].straight, 1, 1e-8);
    }
  }
}

TEST(WeightDirection, LeavesTheModelAsItWas) {
  TanhLayers net(0);
  net.first->weight.mutable_grad() = torch::ones({7, 6});
  net.third->bias.set_requires_grad(false);
  std::vector<at::Tensor> before;
  std::vector<const void*> memory;
  for (const at::Tensor& parameter : net.parameters()) {
    before.push_back(parameter.detach().clone());
    memory.push_back(parameter.data_ptr());
  }
  const Data data = probe(20);
  torch::manual_seed(test::seed(5));
  const at::Tensor next = torch::rand({3});
  torch::manual_seed(test::seed(5));
  Recorder recorder(net);
  recorder.start();
  direction_order({net, gaussian(), data}, {{"second.weight", torch::ones({5, 7})}}, OrderOptions().points(6));
  for (const CapturedLayer& layer : recorder.take().layers) EXPECT_TRUE(layer.calls.empty()) << layer.layer;
  EXPECT_TRUE(torch::equal(torch::rand({3}), next));
  EXPECT_TRUE(net.is_training());
  EXPECT_TRUE(torch::equal(net.first->weight.grad(), torch::ones({7, 6})));
  EXPECT_FALSE(net.second->weight.grad().defined());
  EXPECT_FALSE(net.third->bias.requires_grad());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(torch::equal(net.parameters()[i], before[i]));
    EXPECT_EQ(net.parameters()[i].data_ptr(), memory[i]);
    EXPECT_EQ(net.parameters()[i].scalar_type(), torch::kFloat);
  }
}

TEST(WeightDirection, NamesWhatIsWrong) {
  TanhLayers net(0);
  net.third->bias.set_requires_grad(false);
  const auto message = [&](const LikelihoodPtr& likelihood, const WeightDirection& direction) {
    return message_of([&] { direction_order({net, likelihood, probe(5)}, direction); });
  };
  EXPECT_THAT(message(gaussian(), {{"fourth.weight", torch::ones({3})}}),
              HasSubstr("is 'fourth.weight', expected one of"));
  EXPECT_THAT(message(gaussian(), {{"third.bias", torch::ones({3})}}), HasSubstr("is 'third.bias', expected one of"));
  EXPECT_THAT(message(gaussian(), {{"first.bias", torch::ones({3})}}), HasSubstr("Float [3], expected floating [7]"));
  EXPECT_THAT(message(gaussian(), {}), HasSubstr("the length of the direction is 0"));
  EXPECT_THAT(message(nullptr, random_direction(net)), HasSubstr("likelihood is null"));
  const auto own = likelihood("own", [](const at::Tensor& out, const at::Tensor&) { return out.sum(1); });
  EXPECT_THAT(message(own, {{"first.bias", torch::ones({7})}}), HasSubstr("divergence: the likelihood is 'own'"));
}

// An output that is none, of the forward or later, is named.
TEST(WeightDirection, AnOutputWithoutSamplesIsNamed) {
  TanhLayers net;
  const Data data = probe(8);
  const WeightDirection direction{{"third.bias", torch::ones({3})}};
  const auto message = [&](const LikelihoodPtr& likelihood, const auto& output) {
    int passes = 0;
    const Forward forward = [&](torch::nn::Module& model, const std::vector<at::Tensor>& in) {
      return at::Tensor(output(dynamic_cast<TanhLayers&>(model).forward(in[0]), ++passes));
    };
    return message_of([&] { direction_order({net, likelihood, data, forward}, direction); });
  };
  const char* const samples = "expected one of 8 samples, as the data have";
  for (const LikelihoodPtr& each : {gaussian(), bernoulli(), categorical()}) {
    EXPECT_THAT(message(each, [](const at::Tensor&, int) { return at::Tensor(); }),
                HasSubstr("direction_order: the output of forward is undefined, " + std::string(samples)));
    EXPECT_THAT(message(each, [](const at::Tensor& z, int) { return z.sum(); }), HasSubstr(samples));
    EXPECT_THAT(message(each, [](const at::Tensor& z, int) { return z.narrow(0, 0, 5); }), HasSubstr(samples));
    EXPECT_THAT(message(each, [](const at::Tensor& z, int) { return z.gt(0); }), HasSubstr("expected a floating type"));
    EXPECT_THAT(message(each, [](const at::Tensor& z, int pass) { return pass < 3 ? z : z.narrow(1, 0, 2); }),
                HasSubstr("the model's output is Double [8, 2], expected Double [8, 3], as it was before"));
  }
  EXPECT_THAT(message(categorical(), [](const at::Tensor& z, int) { return z.select(1, 0); }),
              HasSubstr("categorical: the model's output is Double [8], expected a floating type and at least 2"));
}

}  // namespace
}  // namespace dds
