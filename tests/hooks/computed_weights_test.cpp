// Operands that are computed from parameters, and states that are parameters.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/per_sample.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <map>
#include <string>
#include <vector>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using test::data_of;
using test::expect_agrees;
using test::losses_of;
using test::Net;
using test::one_by_one;
using test::some_likelihood;
using Named = std::map<std::string, at::Tensor>;

struct ComputedUse {
  std::string name;
  Named parameters;
  std::function<at::Tensor(const Named& p, const at::Tensor& x)> run;  ///< (n, 6) -> (n, ...)
};
void PrintTo(const ComputedUse& use, std::ostream* os) { *os << use.name; }

std::vector<ComputedUse> computed_uses() {
  torch::manual_seed(1);
  const auto random = [](at::IntArrayRef shape) { return torch::randn(shape, torch::kDouble); };
  const at::Tensor v = random({4, 6}), b = random({4}), g = random({4, 1});
  return {
      {"Linear",
       {{"v", v}, {"b", b}},
       [](const Named& p, const at::Tensor& x) { return torch::linear(x, p.at("v").tanh(), p.at("b")); }},
      {"LinearWithoutBias",
       {{"v", v}},
       [](const Named& p, const at::Tensor& x) { return torch::linear(x, p.at("v").tanh()); }},
      {"LinearOverPositions",
       {{"v", random({4, 3})}, {"b", b}},
       [](const Named& p, const at::Tensor& x) {
         return torch::linear(x.view({-1, 2, 3}), p.at("v").tanh(), p.at("b"));
       }},
      {"Functional",
       {{"v", v}, {"b", b}},
       [](const Named& p, const at::Tensor& x) { return F::linear(x, p.at("v").tanh(), p.at("b")); }},
      {"WeightNorm",
       {{"v", v}, {"g", g}, {"b", b}},
       [](const Named& p, const at::Tensor& x) {
         const at::Tensor& v = p.at("v");
         return torch::linear(x, v * (p.at("g") / v.norm(2, 1, true)), p.at("b"));
       }},
      {"ComputedBias",
       {{"v", v}, {"b", b}, {"g", random({4})}},
       [](const Named& p, const at::Tensor& x) { return torch::linear(x, p.at("v"), p.at("b") * p.at("g")); }},
      {"ComputedBiasOfAConvolution",
       {{"v", random({2, 1, 3})}, {"b", random({2})}},
       [](const Named& p, const at::Tensor& x) { return torch::conv1d(x.unsqueeze(1), p.at("v"), p.at("b").exp()); }},
      {"ComputedScaleOfANorm",
       {{"w", random({6})}, {"b", random({6})}},
       [](const Named& p, const at::Tensor& x) { return torch::layer_norm(x, {6}, p.at("w").exp(), p.at("b").sin()); }},
      {"ActivationsAsSummand",
       {{"v", v}, {"w", random({4, 4})}},
       [](const Named& p, const at::Tensor& x) {
         const at::Tensor h = x.mm(p.at("v").t()).tanh();
         return torch::addmm(h, h.sin(), p.at("w"));
       }},
  };
}

class ComputedOperand : public testing::TestWithParam<ComputedUse> {};

TEST_P(ComputedOperand, IsFollowedToItsParameters) {
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    for (const auto& [name, value] : GetParam().parameters) net.register_parameter(name, value.clone());
    return [](Net& net, const at::Tensor& x) {
      Named parameters;
      for (const auto& parameter : net.named_parameters()) parameters[parameter.key()] = parameter.value();
      return GetParam().run(parameters, x);
    };
  });
  torch::manual_seed(2);
  const at::Tensor x = torch::randn({5, 6}, torch::kDouble);
  for (const bool verify : {true, false}) {
    const auto gradients =
        per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().verify(verify));
    for (const PerSampleLayer& layer : gradients.layers()) {
      ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
    }
    expect_agrees(gradients, one_by_one(*net, losses_of(net->forward(x))));
  }
}

INSTANTIATE_TEST_SUITE_P(Uses, ComputedOperand, testing::ValuesIn(computed_uses()),
                         [](const auto& info) { return info.param.name; });

// ---- initial states that are learned ----

struct Learned {
  std::string name;
  std::function<Net::Run(Net&)> build;  ///< (n, t, 3) -> (n, ...)
  bool in_place = true;                 ///< the operator takes a parameter or a view of it
};
void PrintTo(const Learned& learned, std::ostream* os) { *os << learned.name; }

std::vector<Learned> learned_states() {
  const auto state = [](Net& net, const std::string& name, at::IntArrayRef shape) {
    return net.register_parameter(name, torch::randn(shape));
  };
  const auto all = [](const at::Tensor& x) { return x.flatten(1); };
  return {
      {"LSTM",
       [=](Net& net) -> Net::Run {
         state(net, "h", {2, 1, 4}), state(net, "c", {2, 1, 4});
         auto layer = net.register_module("layer", nn::LSTM(nn::LSTMOptions(3, 4).num_layers(2).batch_first(true)));
         return [=](Net& net, const at::Tensor& x) mutable {
           const auto of = [&](const char* name) { return net.named_parameters()[name].expand({2, x.size(0), 4}); };
           return all(std::get<0>(layer->forward(x, std::tuple{of("h"), of("c")})));
         };
       }},
      {"GRURepeated",
       [=](Net& net) -> Net::Run {
         state(net, "h", {2, 1, 4});
         auto layer = net.register_module("layer", nn::GRU(nn::GRUOptions(3, 4).bidirectional(true)));
         return [=](Net& net, const at::Tensor& x) mutable {
           const at::Tensor h = net.named_parameters()["h"].repeat({1, x.size(0), 1});
           return all(std::get<0>(layer->forward(x.transpose(0, 1), h)).transpose(0, 1));
         };
       },
       false},
      {"RNNOneForEachSample",
       [=](Net& net) -> Net::Run {
         state(net, "h", {1, 5, 4});
         auto layer = net.register_module("layer", nn::RNN(nn::RNNOptions(3, 4).batch_first(true)));
         return [=](Net& net, const at::Tensor& x) mutable {
           return all(std::get<0>(layer->forward(x, net.named_parameters()["h"])));
         };
       }},
      {"LSTMCell",
       [=](Net& net) -> Net::Run {
         state(net, "h", {4}), state(net, "c", {4});
         auto layer = net.register_module("layer", nn::LSTMCell(3, 4));
         return [=](Net& net, const at::Tensor& x) mutable {
           const auto of = [&](const char* name) { return net.named_parameters()[name].expand({x.size(0), 4}); };
           std::tuple<at::Tensor, at::Tensor> states{of("h"), of("c")};
           for (std::int64_t t = 0; t < 3; ++t) states = layer->forward(x.select(1, t), states);
           return torch::cat({std::get<0>(states), std::get<1>(states).sin()}, 1);
         };
       }},
      {"GRUCellComputed",
       [=](Net& net) -> Net::Run {
         state(net, "h", {4});
         auto layer = net.register_module("layer", nn::GRUCell(3, 4));
         return [=](Net& net, const at::Tensor& x) mutable {
           const at::Tensor h = net.named_parameters()["h"].tanh().expand({x.size(0), 4});
           return layer->forward(x.select(1, 0), h);
         };
       },
       false},
      {"FromAnEncoder",
       [=](Net& net) -> Net::Run {
         auto encoder = net.register_module("encoder", nn::Linear(3, 4));
         auto layer = net.register_module("layer", nn::GRU(nn::GRUOptions(3, 4).batch_first(true)));
         return [=](Net&, const at::Tensor& x) mutable {
           return all(std::get<0>(layer->forward(x, encoder->forward(x.select(1, 0)).unsqueeze(0))));
         };
       }},
  };
}

class LearnedState : public test::OnSequences<Learned> {};

TEST_P(LearnedState, LeavesTheLayerItsWeights) {
  const auto reference = one_by_one(*net, losses_of(net->forward(x)));
  for (const bool verify : {true, false}) {
    const auto gradients =
        per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().verify(verify));
    for (const PerSampleLayer& layer : gradients.layers()) {
      ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
    }
    expect_agrees(gradients, reference);
  }
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(net->forward(x)).sum().backward();
  const Captured captured = recorder.take();
  const auto recorded = per_sample_gradients(*net, captured, 5);
  if (GetParam().in_place) {
    expect_agrees(recorded, reference);
  } else {
    for (const std::string& name : recorded.parameters()) {
      EXPECT_LE(test::relative_difference(recorded.gradient(name), reference.at(name)), test::kPerSampleTolerance)
          << name;
    }
    EXPECT_EQ(recorded.parameters().size(), reference.size() - 1);
    EXPECT_THROW(recorded.gradient("h"), InvalidArgument);
  }
  for (const CapturedLayer& site : captured.layers) EXPECT_EQ(site.calls.empty(), site.kind == "Raw") << site.layer;
}

INSTANTIATE_TEST_SUITE_P(States, LearnedState, testing::ValuesIn(learned_states()),
                         [](const auto& info) { return info.param.name; });

TEST(LearnedStates, LeaveTheLayerItsSignature) {
  torch::manual_seed(0);
  struct Learning : nn::Module {
    at::Tensor h0 = register_parameter("h0", torch::randn({1, 1, 4}));
    nn::GRU gru{register_module("gru", nn::GRU(nn::GRUOptions(3, 4).batch_first(true)))};
    nn::Linear head{register_module("head", nn::Linear(4, 3))};
    at::Tensor forward(const at::Tensor& x) {
      return head(std::get<0>(gru(x, h0.expand({1, x.size(0), 4}).contiguous())).select(1, 4));
    }
  } net;
  for (const Signature& s : read({net, categorical(), Data(torch::randn({40, 5, 3}))})) {
    EXPECT_EQ(s.status.no_numbers(), s.layer == "h0") << s.layer << ' ' << to_string(s.status);
  }
}

// ---- bags without entries ----

TEST(EmbeddingBags, WithoutEntriesHaveNoGradient) {
  torch::manual_seed(0);
  const at::Tensor x = torch::tensor({4, 2, 2, 0, 3}), offsets = torch::tensor({0, 2, 2, 4, 5});
  for (const std::int64_t padding : {-1, 3}) {
    for (const auto& mode :
         {nn::EmbeddingBagOptions(5, 3).mode(torch::kMax), nn::EmbeddingBagOptions(5, 3).mode(torch::kMean),
          nn::EmbeddingBagOptions(5, 3).mode(torch::kSum)}) {
      const auto net = std::make_shared<Net>([&](Net& net) -> Net::Run {
        nn::EmbeddingBag layer =
            net.register_module("layer", nn::EmbeddingBag(nn::EmbeddingBagOptions(mode).padding_idx(padding)));
        return [=](Net&, const at::Tensor&) mutable { return layer(x, offsets); };
      });
      net->to(torch::kDouble);
      const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(torch::zeros({5, 1}))},
                                                  PerSampleOptions().verify(false));
      ASSERT_EQ(to_string(gradients.layers()[0].status), "ok") << gradients.layers()[0].detail;
      const at::Tensor rows = gradients.gradient("layer.weight");
      EXPECT_LE(test::relative_difference(rows, one_by_one(*net, losses_of(net->forward(x))).at("layer.weight")),
                1e-12);
      EXPECT_EQ(rows[1].abs().max().item<double>(), 0);
    }
  }
}

}  // namespace
}  // namespace dds
