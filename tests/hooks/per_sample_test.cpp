#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <dds/per_sample.hpp>
#include <dds/recorder.hpp>
#include <map>
#include <type_traits>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::data_of;
using test::expect_agrees;
using test::LayerKind;
using test::losses_of;
using test::message_of;
using test::Net;
using test::one_by_one;
using test::relative_difference;
using test::some_likelihood;
using testing::HasSubstr;

// ---- every layer kind ----

/// The dimension that counts the samples, of what the layer takes and of what it gives; -1: it takes one at a time.
struct Samples {
  std::int64_t input = 0, output = 0;
};

Samples samples_of(const std::string& kind) {
  static const std::map<std::string, Samples> others{
      {"LinearOfOneSample", {-1, -1}},
      {"Conv2dWithoutBatch", {-1, -1}},
      {"RawMv", {-1, -1}},
      {"RawMatmulLeft", {1, 1}},
      {"RawBmmByExpert", {1, 1}},
      {"RawBaddbmm", {1, 1}},
      {"RawEinsumImplicit", {0, 1}},
      {"LSTM", {1, 1}},
      {"RNN", {1, 1}},
      {"LSTMTwoLayers", {1, 1}},
  };
  const auto known = others.find(kind);
  return known == others.end() ? Samples{} : known->second;
}

/// Runs a kind's network on data whose first dimension counts samples.
Forward forward_of(const LayerKind& kind) {
  const Samples samples = samples_of(kind.name);
  return [samples](torch::nn::Module& model, const std::vector<at::Tensor>& x) {
    auto& net = dynamic_cast<Net&>(model);
    if (samples.input < 0) return net.forward(x[0].squeeze(0)).unsqueeze(0);
    return net.forward(x[0].movedim(0, samples.input)).movedim(samples.output, 0);
  };
}

at::Tensor input_of(const LayerKind& kind) {
  const at::Tensor x = kind.input();
  const std::int64_t dim = samples_of(kind.name).input;
  const at::Tensor rows = dim < 0 ? x.unsqueeze(0) : x.movedim(dim, 0);
  return rows.is_floating_point() ? rows.to(torch::kDouble) : rows;
}

class PerSample : public testing::TestWithParam<LayerKind> {
 protected:
  void SetUp() override {
    torch::manual_seed(1);
    net = test::make_net(GetParam());
    net->to(torch::kDouble);
    x = input_of(GetParam());
    forward = forward_of(GetParam());
  }

  std::shared_ptr<Net> net;
  at::Tensor x;
  Forward forward;
};

TEST_P(PerSample, GradientsAreThoseOfOneByOneBackward) {
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x), forward});
  for (const PerSampleLayer& layer : gradients.layers()) {
    ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
  }
  net->eval();
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
}

// In small blocks, every contraction takes several.
TEST_P(PerSample, BlocksDoNotMatter) {
  const auto gradients =
      per_sample_gradients({*net, some_likelihood(), data_of(x), forward}, PerSampleOptions().max_bytes(1));
  net->eval();
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
}

// A step of the user's own, with a loss that averages, where the user says which dimension counts the samples.
TEST_P(PerSample, GradientsOfARecordedStepAreThoseToo) {
  net->eval();
  const std::int64_t n = x.size(0);
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(forward(*net, {x})).mean().backward();
  const Captured captured = recorder.take();
  auto options = PerSampleOptions().scale(static_cast<double>(n));
  if (const std::int64_t dim = samples_of(GetParam().name).output; dim >= 0) options.samples({{"*", {dim}}});
  const auto gradients = per_sample_gradients(*net, captured, n, options);
  if (const std::string name = GetParam().name; name == "Masked" || name == "LowRank" || name == "Normalised") {
    EXPECT_EQ(to_string(gradients.layers().at(0).status), "not_replayable");
    EXPECT_THAT(message_of([&] { gradients.gram("p"); }), HasSubstr("computed from parameters"));
    return;
  }
  for (const PerSampleLayer& layer : gradients.layers()) {
    ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
  }
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
  for (const auto& parameter : net->named_parameters()) {
    EXPECT_LE(relative_difference(gradients.sum(parameter.key()), n * parameter.value().grad()),
              test::kPerSampleTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PerSample, testing::ValuesIn(test::layer_kinds()),
                         [](const auto& info) { return info.param.name; });

// ---- recurrent layers: all that they give may be used ----

struct Recurrent {
  std::string name;
  std::function<Net::Run(Net&)> build;  ///< (n, t, 3) -> (n, everything that the layer gave)
};
void PrintTo(const Recurrent& recurrent, std::ostream* os) { *os << recurrent.name; }

at::Tensor flat(const at::Tensor& x, std::int64_t sample_dim) { return x.movedim(sample_dim, 0).flatten(1); }

std::vector<Recurrent> recurrents() {
  namespace nn = torch::nn;
  const auto lstm = [](nn::LSTMOptions options) -> std::function<Net::Run(Net&)> {
    return [options](Net& net) -> Net::Run {
      auto layer = net.register_module("layer", nn::LSTM(options));
      const std::int64_t batch = options.batch_first() ? 0 : 1;
      return [layer, batch](Net&, const at::Tensor& x) mutable {
        const auto [output, state] = layer->forward(x.movedim(0, batch));
        return torch::cat({flat(output, batch), flat(std::get<0>(state), 1), flat(std::get<1>(state), 1)}, 1);
      };
    };
  };
  const auto last_state_only = [](Net& net) -> Net::Run {
    auto layer = net.register_module("layer", nn::LSTM(nn::LSTMOptions(3, 4).batch_first(true)));
    return [layer](Net&, const at::Tensor& x) mutable { return flat(std::get<0>(std::get<1>(layer->forward(x))), 1); };
  };
  const auto other = [](auto options) -> std::function<Net::Run(Net&)> {
    using Layer = std::conditional_t<std::is_same_v<decltype(options), nn::GRUOptions>, nn::GRU, nn::RNN>;
    return [options](Net& net) -> Net::Run {
      auto layer = net.register_module("layer", Layer(options));
      const std::int64_t batch = options.batch_first() ? 0 : 1;
      return [layer, batch](Net&, const at::Tensor& x) mutable {
        const auto [output, state] = layer->forward(x.movedim(0, batch));
        return torch::cat({flat(output, batch), flat(state, 1)}, 1);
      };
    };
  };
  // A loop of the user's over a cell, whose weights are used at every step.
  const auto cell = [](auto make) -> std::function<Net::Run(Net&)> {
    return [make](Net& net) -> Net::Run {
      auto layer = net.register_module("layer", make());
      return [layer](Net&, const at::Tensor& x) mutable {
        if constexpr (std::is_same_v<decltype(make()), nn::LSTMCell>) {
          std::tuple<at::Tensor, at::Tensor> state = layer->forward(x.select(1, 0));
          for (std::int64_t t = 1; t < x.size(1); ++t) state = layer->forward(x.select(1, t), state);
          return torch::cat({std::get<0>(state), std::get<1>(state).sin()}, 1);
        } else {
          at::Tensor h = layer->forward(x.select(1, 0));
          for (std::int64_t t = 1; t < x.size(1); ++t) h = layer->forward(x.select(1, t), h);
          return h;
        }
      };
    };
  };
  return {
      {"LSTM", lstm(nn::LSTMOptions(3, 4))},
      {"LSTMTwoLayersBothWays", lstm(nn::LSTMOptions(3, 4).num_layers(2).bidirectional(true).batch_first(true))},
      {"LSTMWithoutBias", lstm(nn::LSTMOptions(3, 4).bias(false).num_layers(2))},
      {"LSTMProjected", lstm(nn::LSTMOptions(3, 4).proj_size(2).num_layers(2).bidirectional(true))},
      {"LSTMLastStateOnly", last_state_only},
      {"GRU", other(nn::GRUOptions(3, 4))},
      {"GRUTwoLayersBothWays", other(nn::GRUOptions(3, 4).num_layers(2).bidirectional(true).batch_first(true))},
      {"RNNTanhBothWays", other(nn::RNNOptions(3, 4).bidirectional(true))},
      {"RNNReLUTwoLayers", other(nn::RNNOptions(3, 4).nonlinearity(torch::kReLU).num_layers(2).batch_first(true))},
      {"LSTMCell", cell([] { return nn::LSTMCell(3, 4); })},
      {"GRUCell", cell([] { return nn::GRUCell(3, 4); })},
      {"RNNCell", cell([] { return nn::RNNCell(3, 4); })},
      {"RNNCellReLU", cell([] { return nn::RNNCell(nn::RNNCellOptions(3, 4).nonlinearity(torch::kReLU)); })},
  };
}

class RecurrentLayer : public test::OnSequences<Recurrent> {};

TEST_P(RecurrentLayer, GatesAreRecoveredWhateverIsUsedOfTheOutput) {
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
  ASSERT_EQ(to_string(gradients.layers().at(0).status), "ok") << gradients.layers().at(0).detail;
  const auto reference = one_by_one(*net, losses_of(net->forward(x)));
  ASSERT_EQ(gradients.parameters().size(), net->parameters().size());
  expect_agrees(gradients, reference);

  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(net->forward(x)).sum().backward();
  expect_agrees(per_sample_gradients(*net, recorder.take(), x.size(0)), reference);
}

TEST_P(RecurrentLayer, InFp32Too) {
  const auto reference = one_by_one(*net, losses_of(net->forward(x)));
  net->to(torch::kFloat);
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x.to(torch::kFloat))});
  ASSERT_EQ(gradients.parameters().size(), reference.size());
  for (const std::string& name : gradients.parameters()) {
    EXPECT_EQ(gradients.gradient(name).scalar_type(), torch::kFloat);
    EXPECT_LE(relative_difference(gradients.gradient(name).to(torch::kDouble), reference.at(name)), 1e-4) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RecurrentLayer, testing::ValuesIn(recurrents()),
                         [](const auto& info) { return info.param.name; });

// Weights that the optimiser has moved since, and dropout: the recurrence cannot be what it was.
TEST(RecurrentLayers, WhatCannotBeComputedAgainSaysSo) {
  torch::manual_seed(0);
  const at::Tensor x = torch::randn({5, 6, 3}, torch::kDouble);
  for (const bool dropout : {true, false}) {
    Net net([&](Net& net) -> Net::Run {
      auto layer = net.register_module(
          "layer", torch::nn::LSTM(torch::nn::LSTMOptions(3, 4).num_layers(2).dropout(dropout ? 0.5 : 0)));
      return [layer](Net&, const at::Tensor& x) mutable { return std::get<0>(layer->forward(x)); };
    });
    net.to(torch::kDouble);
    Recorder recorder(net, {.operators = true});
    recorder.start();
    net.forward(x).sum().backward();
    const Captured captured = recorder.take();
    if (!dropout) {
      torch::optim::SGD(net.parameters(), 0.1).step();
    }
    const auto gradients = per_sample_gradients(net, captured, 6);
    EXPECT_EQ(to_string(gradients.layers()[0].status), "not_replayable");
    EXPECT_THAT(gradients.layers()[0].detail, HasSubstr(dropout ? "dropout" : "changed since"));
    EXPECT_TRUE(gradients.parameters().empty());
  }
}

// ---- which rows belong to which sample ----

/// One layer, run in a way that its shapes do not tell the samples from the positions.
struct Arrangement {
  std::string name;
  std::function<Net::Run(Net&)> build;  ///< (n, t, 3) -> (n, ...)
};
void PrintTo(const Arrangement& arrangement, std::ostream* os) { *os << arrangement.name; }

std::vector<Arrangement> arrangements() {
  namespace nn = torch::nn;
  const auto linear = [](auto run) -> std::function<Net::Run(Net&)> {
    return [run](Net& net) -> Net::Run {
      nn::Linear layer = net.register_module("layer", nn::Linear(3, 4));
      return [layer, run](Net&, const at::Tensor& x) mutable { return run(layer, x); };
    };
  };
  return {
      {"SamplesFirst", linear([](nn::Linear& l, const at::Tensor& x) { return l(x); })},
      {"SequenceFirst",
       linear([](nn::Linear& l, const at::Tensor& x) { return l(x.transpose(0, 1)).transpose(0, 1); })},
      {"FoldedSampleMajor", linear([](nn::Linear& l, const at::Tensor& x) {
         return l(x.flatten(0, 1)).unflatten(0, {x.size(0), x.size(1)});
       })},
      {"FoldedPositionMajor", linear([](nn::Linear& l, const at::Tensor& x) {
         return l(x.transpose(0, 1).flatten(0, 1)).unflatten(0, {x.size(1), x.size(0)}).transpose(0, 1);
       })},
      {"Shuffled", linear([](nn::Linear& l, const at::Tensor& x) {
         const at::Tensor order = torch::arange(x.size(0) - 1, -1, -1);
         return l(x.select(1, 0).index_select(0, order)).index_select(0, order);
       })},
      {"SomeRowsOnly",  // as in a mixture of experts, or a loss over masked tokens
       linear([](nn::Linear& l, const at::Tensor& x) {
         const at::Tensor chosen = (x.select(2, 0) > 0).nonzero();
         const at::Tensor rows = l(x.index({chosen.select(1, 0), chosen.select(1, 1)}));
         return torch::zeros({x.size(0), 4}, x.options()).index_add(0, chosen.select(1, 0), rows);
       })},
      {"OneSampleAtATime", linear([](nn::Linear& l, const at::Tensor& x) {
         std::vector<at::Tensor> outputs;
         for (std::int64_t i = 0; i < x.size(0); ++i) outputs.push_back(l(x[i]));
         return torch::stack(outputs);
       })},
      {"FramesOfAConvolution",
       [](Net& net) -> Net::Run {
         nn::Conv1d layer = net.register_module("layer", nn::Conv1d(1, 2, 2));
         return [layer](Net&, const at::Tensor& x) mutable {
           return layer(x.flatten(0, 1).unsqueeze(1)).unflatten(0, {x.size(0), x.size(1)});
         };
       }},
      {"TwiceInDifferentOrders",
       linear([](nn::Linear& l, const at::Tensor& x) { return l(x) + l(x.cos().transpose(0, 1)).transpose(0, 1); })},
  };
}

class SampleRowsOf : public testing::TestWithParam<Arrangement> {};

TEST_P(SampleRowsOf, AreMeasuredWhereShapesDoNotTell) {
  torch::manual_seed(3);
  const auto net = std::make_shared<Net>(GetParam().build);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({5, 5, 3}, torch::kDouble);  // as many positions as samples
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
  ASSERT_EQ(to_string(gradients.layers().at(0).status), "ok") << gradients.layers().at(0).detail;
  expect_agrees(gradients, one_by_one(*net, losses_of(net->forward(x))));
}

INSTANTIATE_TEST_SUITE_P(Orders, SampleRowsOf, testing::ValuesIn(arrangements()),
                         [](const auto& info) { return info.param.name; });

std::shared_ptr<Net> linear_over_positions() {
  return std::make_shared<Net>([](Net& net) -> Net::Run {
    torch::nn::Linear layer = net.register_module("layer", torch::nn::Linear(3, 4));
    return [layer](Net&, const at::Tensor& x) mutable { return layer(x); };
  });
}

TEST(SampleRows, ARecordingIsNotGuessedAt) {
  torch::manual_seed(0);
  const auto net = linear_over_positions();
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({5, 5, 3}, torch::kDouble);
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(net->forward(x)).sum().backward();
  const Captured captured = recorder.take();
  const auto unknown = per_sample_gradients(*net, captured, 5);
  EXPECT_EQ(to_string(unknown.layers()[0].status), "samples_unknown");
  EXPECT_THAT(message_of([&] { unknown.gradient("layer.weight"); }),
              testing::AllOf(HasSubstr("layer.weight"), HasSubstr("[5, 5, 4]"), HasSubstr("5 samples")));

  const auto reference = one_by_one(*net, losses_of(net->forward(x)));
  expect_agrees(per_sample_gradients(*net, captured, 5, PerSampleOptions().samples({{"lay*", {0}}})), reference);
  // Told otherwise, it does as told: here positions stand for samples.
  const auto transposed = per_sample_gradients(*net, captured, 5, PerSampleOptions().samples({{"*", {1}}}));
  EXPECT_GT(relative_difference(transposed.gradient("layer.bias"), reference.at("layer.bias")), 0.1);
  EXPECT_LE(relative_difference(transposed.sum("layer.bias"), reference.at("layer.bias").sum(0)),
            test::kPerSampleTolerance);

  EXPECT_THAT(message_of([&] {
                per_sample_gradients(*net, captured, 3, PerSampleOptions().samples({{"*", {0}}}));
              }),
              testing::AllOf(HasSubstr("dimension 0"), HasSubstr("3 samples"), HasSubstr("[5, 5, 4]")));
  EXPECT_THAT(message_of([&] {
                per_sample_gradients(*net, captured, 5, PerSampleOptions().samples({{"head", {0}}}));
              }),
              HasSubstr("'head'"));
}

TEST(SampleRows, WhatMixesSamplesSaysSo) {
  torch::manual_seed(0);
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    torch::nn::Linear layer = net.register_module("layer", torch::nn::Linear(3, 4));
    torch::nn::Linear head = net.register_module("head", torch::nn::Linear(4, 2));
    return [layer, head](Net&, const at::Tensor& x) mutable {
      const at::Tensor h = layer(x.select(1, 0).mean(0, true).expand({x.size(1), 3}));  // one row for all samples
      return head(h.mean(0) + x.flatten(1).narrow(1, 0, 4));
    };
  });
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({4, 6, 3}, torch::kDouble);
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
  EXPECT_EQ(to_string(gradients.layers()[0].status), "samples_unknown");
  EXPECT_EQ(to_string(gradients.layers()[1].status), "ok");
  EXPECT_THAT(gradients.parameters(), testing::ElementsAre("head.weight", "head.bias"));
  // One backward pass for each sample needs no rows.
  const auto exact = per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().one_by_one(true));
  EXPECT_EQ(to_string(exact.layers()[0].status), "ok");
  expect_agrees(exact, one_by_one(*net, losses_of(net->forward(x))));
}

// ---- parameters with several uses ----

struct TiedModel : torch::nn::Module {
  explicit TiedModel(bool ghost) {
    embedding = register_module("embedding", torch::nn::Embedding(7, 4));
    head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 7).bias(!ghost)));
    to(torch::kDouble);
    if (ghost) {
      head->weight = embedding->weight;
    } else {
      head->weight.set_data(embedding->weight.data());
    }
  }
  at::Tensor forward(const at::Tensor& x) { return head(embedding(x).tanh()); }
  torch::nn::Embedding embedding{nullptr};
  torch::nn::Linear head{nullptr};
};

TEST(TiedWeights, GradientsAddOverTheUsesAndTheirGramHasCrossTerms) {
  torch::manual_seed(0);
  const auto model = std::make_shared<TiedModel>(/*ghost=*/true);
  const at::Tensor x = torch::randint(0, 7, {6, 3}, torch::kLong);
  const auto gradients = per_sample_gradients({*model, some_likelihood(), data_of(x)});
  const at::Tensor rows = one_by_one(*model, losses_of(model->forward(x))).at("embedding.weight");
  EXPECT_LE(relative_difference(gradients.gradient("embedding.weight"), rows), test::kPerSampleTolerance);
  const at::Tensor gram = rows.flatten(1).mm(rows.flatten(1).t()) / 6;
  EXPECT_LE(relative_difference(gradients.gram("embedding"), gram), test::kPerSampleTolerance);
  // The weight that is registered and never used.
  EXPECT_THAT(message_of([&] { gradients.gram("head"); }), HasSubstr("not_run"));

  // K1 and K2 alone: the uses one at a time.
  const at::Tensor hidden = model->embedding(x).tanh();
  const at::Tensor last = hidden.detach().requires_grad_(true);
  const at::Tensor weight = model->embedding->weight;
  const auto part = [&](const at::Tensor& output) {
    std::vector<at::Tensor> parts;
    const at::Tensor losses = losses_of(output);
    for (std::int64_t i = 0; i < 6; ++i) {
      parts.push_back(torch::autograd::grad({losses[i]}, {weight}, {}, true)[0].flatten());
    }
    return torch::stack(parts);
  };
  const at::Tensor first = part(hidden.matmul(weight.detach().t())), second = part(last.matmul(weight.t()));
  const at::Tensor cross = first.mm(second.t());
  const at::Tensor whole = (first.mm(first.t()) + second.mm(second.t()) + cross + cross.t()) / 6;
  EXPECT_LE(relative_difference(gradients.gram("embedding"), whole), test::kPerSampleTolerance);
}

TEST(TiedWeights, ThatAreRegisteredTwiceAreOneParameterOfTwoLayers) {
  torch::manual_seed(0);
  const auto model = std::make_shared<TiedModel>(/*ghost=*/false);
  const at::Tensor x = torch::randint(0, 7, {6, 3}, torch::kLong);
  const auto gradients = per_sample_gradients({*model, some_likelihood(), data_of(x)});
  EXPECT_THAT(gradients.parameters(), testing::ElementsAre("embedding.weight", "head.bias"));
  const auto reference = one_by_one(*model, losses_of(model->forward(x)));
  const at::Tensor weight = reference.at("embedding.weight") + reference.at("head.weight");  // autograd: two leaves
  EXPECT_LE(relative_difference(gradients.gradient("head.weight"), weight), test::kPerSampleTolerance);
  const at::Tensor rows = torch::cat({weight.flatten(1), reference.at("head.bias")}, 1);
  EXPECT_LE(relative_difference(gradients.gram("head"), rows.mm(rows.t()) / 6), test::kPerSampleTolerance);
  EXPECT_LE(relative_difference(gradients.squared_norms(), rows.square().sum(1)), test::kPerSampleTolerance);
}

/// Uses of raw parameters that lie in them in some way of their own.
struct Layout {
  std::string name;
  std::function<Net::Run(Net&)> build;  ///< (n, 6) -> (n, ...)
};
void PrintTo(const Layout& layout, std::ostream* os) { *os << layout.name; }

std::vector<Layout> layouts() {
  const auto with = [](std::vector<std::int64_t> shape, auto use) -> std::function<Net::Run(Net&)> {
    return [shape, use](Net& net) -> Net::Run {
      const at::Tensor p = net.register_parameter("p", torch::randn(shape));
      return [use](Net& net, const at::Tensor& x) { return use(net.named_parameters()["p"], x); };
    };
  };
  using T = const at::Tensor&;
  return {
      {"Columns", with({3, 6},
                       [](T p, T x) {
                         return x.narrow(1, 0, 2).mm(p.narrow(1, 0, 2).t()) +
                                x.narrow(1, 2, 4).mm(p.narrow(1, 2, 4).t()).sin();
                       })},
      {"Rows", with({6, 6}, [](T p, T x) { return x.mm(p.narrow(0, 0, 3).t()) + x.cos().mm(p.narrow(0, 3, 3).t()); })},
      {"RowsThatOverlap",
       with({6, 6}, [](T p, T x) { return x.mm(p.narrow(0, 0, 4).t()) + x.cos().mm(p.narrow(0, 2, 4).t()); })},
      {"BothWays", with({6, 6}, [](T p, T x) { return x.mm(p).tanh().mm(p.t()); })},
      {"TwiceTheSameWay", with({6, 6}, [](T p, T x) { return x.mm(p).tanh().mm(p); })},
      {"Flattened", with({21},
                         [](T p, T x) {
                           return torch::addmm(p.narrow(0, 18, 3), x, p.narrow(0, 0, 18).view({3, 6}).t());
                         })},
      {"ScaledProduct", with({7, 4}, [](T p, T x) { return torch::addmm(p[6], x, p.narrow(0, 0, 6), 0.5, 2); })},
      {"BiasAfterwards", with({7, 4},
                              [](T p, T x) {
                                return x.view({x.size(0), 1, 6}).matmul(p.narrow(0, 0, 6)).add_(p[6]);
                              })},
      {"BiasByPosition", with({2, 3, 4},
                              [](T p, T x) {
                                return torch::baddbmm(p.select(0, 0).narrow(0, 0, 1).unsqueeze(0),
                                                      x.view({x.size(0), 2, 3}),
                                                      p.select(0, 1).unsqueeze(0).expand({x.size(0), 3, 4}));
                              })},
      {"ThreeOperands", with({2, 4, 3},
                             [](T p, T x) {
                               return torch::einsum("bi,bj,ijo->bo", {x.narrow(1, 0, 2), x.narrow(1, 2, 4), p});
                             })},
      {"GroupsInTheMiddle", with({3, 2, 4},
                                 [](T p, T x) {
                                   return torch::einsum("bhi,iho->bho", {x.view({x.size(0), 2, 3}), p});
                                 })},
      {"SummedInput", with({3, 4},
                           [](T p, T x) {
                             return torch::einsum("bti,io->bo", {x.view({x.size(0), 2, 3}), p});
                           })},
      {"SummedWeight", with({3, 4},
                            [](T p, T x) {
                              return torch::einsum("bti,io->bt", {x.view({x.size(0), 2, 3}), p});
                            })},
      {"OverHeads", with({3, 4},
                         [](T p, T x) {
                           return torch::matmul(x.view({x.size(0), 2, 1, 3}), p);
                         })},
      {"NormalisedConvolution", with({2, 1, 3}, [](T p, T x) { return torch::conv1d(x.unsqueeze(1), p / p.norm()); })},
      {"GroupedConvolutionOfAProduct", with({4, 1, 2},
                                            [](T p, T x) {
                                              return torch::nn::functional::conv1d(
                                                  x.view({x.size(0), 2, 3}), p * p.cos(),
                                                  torch::nn::functional::Conv1dFuncOptions().groups(2));
                                            })},
      {"ChannelsLast",
       [](Net& net) -> Net::Run {
         torch::nn::Conv2d layer = net.register_module("layer", torch::nn::Conv2d(2, 3, 2));
         layer->weight.set_data(layer->weight.contiguous(torch::MemoryFormat::ChannelsLast));
         return [layer](Net&, const at::Tensor& x) mutable {
           return layer(torch::stack({x, x.cos()}, 1).view({x.size(0), 2, 2, 3}));
         };
       }},
  };
}

class ParameterLayout : public testing::TestWithParam<Layout> {};

TEST_P(ParameterLayout, GradientsLieWhereTheParameterHasThem) {
  torch::manual_seed(5);
  const auto net = std::make_shared<Net>(GetParam().build);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({5, 6}, torch::kDouble);
  for (const std::int64_t max_bytes : {std::int64_t{1} << 20, std::int64_t{1}}) {
    const auto gradients =
        per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().max_bytes(max_bytes));
    ASSERT_EQ(gradients.parameters().size(), net->parameters().size()) << gradients.layers()[0].detail;
    expect_agrees(gradients, one_by_one(*net, losses_of(net->forward(x))));
  }
}

INSTANTIATE_TEST_SUITE_P(Uses, ParameterLayout, testing::ValuesIn(layouts()),
                         [](const auto& info) { return info.param.name; });

/// Positions, width in, width out: shapes for which one order of contraction or the other is cheaper.
class Contraction : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Contraction, BothOrdersGiveTheSame) {
  torch::manual_seed(6);
  const auto [positions, in, out] = GetParam();
  torch::nn::Linear layer(in, out);
  layer->to(torch::kDouble);
  const at::Tensor x = torch::randn({6, positions, in}, torch::kDouble);
  for (const std::int64_t max_bytes : {std::int64_t{1} << 20, std::int64_t{5000}}) {
    const auto gradients =
        per_sample_gradients({*layer, some_likelihood(), data_of(x)}, PerSampleOptions().max_bytes(max_bytes));
    expect_agrees(gradients, one_by_one(*layer, losses_of(layer->forward(x))));
  }
}
INSTANTIATE_TEST_SUITE_P(Shapes, Contraction,
                         testing::Combine(testing::Values(1, 2, 30), testing::Values(1, 3, 40),
                                          testing::Values(1, 2, 40)));

// More samples than fit into one block of the symmetric products.
TEST(Contractions, OfManySamples) {
  torch::manual_seed(7);
  torch::nn::Linear layer(5, 3);
  layer->to(torch::kDouble);
  for (const std::int64_t positions : {1, 40}) {
    const at::Tensor x = torch::randn({150, positions, 5}, torch::kDouble);
    const auto gradients = per_sample_gradients({*layer, some_likelihood(), data_of(x)});
    expect_agrees(gradients, one_by_one(*layer, losses_of(layer->forward(x))));
  }
}

TEST(Embeddings, ScaledByFrequencyAddUpToTheGradient) {
  torch::manual_seed(0);
  torch::nn::Embedding layer(torch::nn::EmbeddingOptions(7, 3).scale_grad_by_freq(true));
  const at::Tensor x = torch::randint(0, 7, {5, 4}, torch::kLong);
  Recorder recorder(*layer, {.operators = true});
  recorder.start();
  losses_of(layer->forward(x)).sum().backward();
  const auto gradients = per_sample_gradients(*layer, recorder.take(), 5, PerSampleOptions().samples({{"*", {0}}}));
  EXPECT_EQ(to_string(gradients.layers()[0].status), "coupled");
  EXPECT_LE(relative_difference(gradients.sum("weight"), layer->weight.grad()), 1e-6);
}

// ---- samples that the forward couples ----

TEST(CoupledSamples, RowsAreThoseOfTheGradientOfTheSummedLoss) {
  torch::manual_seed(0);
  namespace nn = torch::nn;
  nn::Sequential model(nn::Linear(3, 4), nn::BatchNorm1d(4), nn::Linear(4, 2));
  model->to(torch::kDouble);
  const at::Tensor x = torch::randn({6, 3}, torch::kDouble);
  Recorder recorder(*model, {.operators = true});
  recorder.start();
  losses_of(model->forward(x)).sum().backward();
  const auto gradients = per_sample_gradients(*model, recorder.take(), 6);
  EXPECT_EQ(to_string(gradients.layers()[0].status), "coupled");  // it ran before
  EXPECT_EQ(to_string(gradients.layers()[1].status), "coupled");
  EXPECT_EQ(to_string(gradients.layers()[2].status), "ok");

  const auto linear = model->ptr<nn::LinearImpl>(0);
  const auto norm = std::dynamic_pointer_cast<nn::BatchNorm1dImpl>(model->ptr(1));
  const at::Tensor a = linear->forward(x);
  const at::Tensor centred = a - a.mean(0), scaled = centred / (a.var(0, /*unbiased=*/false) + 1e-5).sqrt();
  const at::Tensor b = scaled * norm->weight + norm->bias;
  const auto deltas = torch::autograd::grad({losses_of(model->ptr<nn::LinearImpl>(2)->forward(b)).sum()}, {a, b});
  EXPECT_LE(relative_difference(gradients.gradient("0.weight"), deltas[0].unsqueeze(2) * x.unsqueeze(1)), 1e-10);
  EXPECT_LE(relative_difference(gradients.gradient("1.weight"), deltas[1] * scaled), 1e-10);
  EXPECT_LE(relative_difference(gradients.gradient("1.bias"), deltas[1]), 1e-10);
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_LE(relative_difference(gradients.sum(parameter.key()), parameter.value().grad()), 1e-10) << parameter.key();
  }
}

// ---- numbers ----

TEST(GramSpectra, RowsReachWhereTheGramMatrixIsNoise) {
  torch::manual_seed(0);
  // Rows delta_i a_i^T with a_i of scales 1 to 1e-12: eigenvalues from 1 down to 1e-24.
  const std::int64_t n = 7;
  torch::nn::Linear layer(torch::nn::LinearOptions(n, 1).bias(false));
  layer->to(torch::kDouble);
  const at::Tensor scales = torch::pow(10.0, -2 * torch::arange(n, torch::kDouble));
  const at::Tensor x = test::orthonormal(n, n) * scales;  // columns scaled: x x^T has eigenvalues scales^2
  const auto sum = likelihood("sum", [](const at::Tensor& output, const at::Tensor&) { return output.sum(1); });
  const auto gradients = per_sample_gradients({*layer, sum, data_of(x)});
  const at::Tensor expected = scales.square() / n;
  const GramSpectrum rows = gradients.spectra(GramRange::Rows).at(0);
  EXPECT_LE(relative_difference(torch::tensor(rows.eigenvalues, torch::kDouble).log(), expected.log()), 1e-3);
  EXPECT_LT(rows.floor, expected[-1].item<double>());
  const GramSpectrum gram = gradients.spectra().at(0);
  EXPECT_GT(gram.floor, expected[-2].item<double>());
  EXPECT_NEAR(gram.eigenvalues[0], expected[0].item<double>(), 1e-14);
  EXPECT_NEAR(gram.eigenvalues[2] / expected[2].item<double>(), 1, 1e-5);
}

class GramFloor : public testing::TestWithParam<at::ScalarType> {};

// Every sample twice: half of the eigenvalues are zero, and come out at or below the floor.
TEST_P(GramFloor, HoldsWhatIsZero) {
  torch::manual_seed(0);
  namespace nn = torch::nn;
  nn::Sequential model(nn::Linear(20, 30), nn::Tanh(), nn::Linear(30, 10));
  model->to(GetParam());
  const at::Tensor x = torch::randn({40, 20}).to(GetParam()).repeat({2, 1});
  const Data data(x, torch::randint(0, 10, {40}, torch::kLong).repeat({2}));
  const auto gradients = per_sample_gradients({*model, categorical(), data});
  for (const GramRange range : {GramRange::Gram, GramRange::Rows}) {
    const std::vector<GramSpectrum> spectra = gradients.spectra(range);
    ASSERT_FALSE(spectra.empty());
    for (const GramSpectrum& spectrum : spectra) {
      const auto above = std::count_if(spectrum.eigenvalues.begin(), spectrum.eigenvalues.end(),
                                       [&](double value) { return value > spectrum.floor; });
      EXPECT_LE(above, 40) << spectrum.layer;
      EXPECT_GE(above, 35) << spectrum.layer;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Types, GramFloor, testing::Values(torch::kFloat, torch::kDouble));

TEST(GramSpectra, NoNumbersFromNaN) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::Linear(4, 2));
  at::Tensor x = torch::randn({6, 3});
  x[2][1] = std::nan("");
  const auto spectra =
      per_sample_gradients({*model, categorical(), Data(x, torch::zeros({6}, torch::kLong))}).spectra();
  ASSERT_EQ(spectra.size(), 2u);
  for (const GramSpectrum& spectrum : spectra) {
    EXPECT_EQ(to_string(spectrum.status), "non_finite");
    EXPECT_TRUE(spectrum.eigenvalues.empty());
  }
}

// One sample's gradient has a NaN or is too large: the layers say whose, and the others have theirs.
TEST(PerSampleGradients, NameTheSamplesWhoseGradientsAreNotFinite) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  const at::Tensor y = torch::randn({6, 2});
  const auto of = [&](const at::Tensor& x, const at::Tensor& targets) {
    return per_sample_gradients({*model, gaussian(), Data(x, targets)});
  };
  const at::Tensor x = torch::randn({6, 3});
  const auto right = of(x, y);
  at::Tensor marked = x.clone(), missing = y.clone(), huge = y.clone();
  marked[2][1] = std::nan("");
  missing[2][0] = std::nan("");
  huge[2][0] = std::numeric_limits<float>::infinity();
  for (const auto& [inputs, targets] : {std::pair{marked, y}, {x, missing}, {x, huge}}) {
    const auto gradients = of(inputs, targets);
    ASSERT_EQ(gradients.layers().size(), 2u);
    for (const PerSampleLayer& layer : gradients.layers()) {
      EXPECT_EQ(to_string(layer.status), "non_finite");
      EXPECT_THAT(layer.detail, testing::HasSubstr("the gradient of sample 2 has a NaN or Inf"));
      EXPECT_TRUE(layer.has_gradients);
    }
    for (const std::string& name : gradients.parameters()) {
      const at::Tensor rows = gradients.gradient(name), before = right.gradient(name);
      EXPECT_FALSE(torch::isfinite(rows[2]).all().item<bool>());
      for (const int i : {0, 1, 3, 4, 5}) EXPECT_TRUE(torch::allclose(rows[i], before[i])) << name << i;
    }
  }
  EXPECT_EQ(to_string(right.layers()[0].status), "ok");
}

class LowPrecision : public testing::TestWithParam<at::ScalarType> {};

TEST_P(LowPrecision, IsComputedInFp32) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  const at::Tensor x = torch::randn({6, 3}).to(GetParam());
  model->to(GetParam());
  Recorder recorder(*model, {.operators = true});
  recorder.start();
  model->forward(x).square().sum().backward();
  const auto gradients = per_sample_gradients(*model, recorder.take(), 6);
  EXPECT_EQ(gradients.gram("0").scalar_type(), torch::kFloat);
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_LE(relative_difference(gradients.sum(parameter.key()), parameter.value().grad().to(torch::kFloat)), 0.02);
  }
}
INSTANTIATE_TEST_SUITE_P(Types, LowPrecision, testing::Values(torch::kBFloat16));

// ---- uses that are not captured ----

// What the norm of the weight gives to one sample it takes from the next: the plain sum has none of it.
TEST(UsesThatAreNotCaptured, AreNoticedWhereTheyCancel) {
  torch::manual_seed(0);
  const at::Tensor signs = torch::tensor({1.0, -1.0, 1.0, -1.0}, torch::kDouble).unsqueeze(1);
  const auto net = std::make_shared<Net>([signs](Net& net) -> Net::Run {
    torch::nn::Linear layer = net.register_module("layer", torch::nn::Linear(3, 1));
    return [=](Net&, const at::Tensor& x) mutable {
      return layer(x) + signs * torch::linalg_svdvals(layer->weight).sum();
    };
  });
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({4, 3}, torch::kDouble);
  const Data data(x, net->forward(x).detach() - 1);  // residuals of 1
  const auto gradients = per_sample_gradients({*net, gaussian(), data});
  ASSERT_EQ(gradients.layers().size(), 1u);
  EXPECT_EQ(to_string(gradients.layers()[0].status), "not_observable");
  EXPECT_EQ(gradients.parameters(), std::vector<std::string>{"layer.bias"});
}

TEST(UsesThatAreNotCaptured, AreNoticedByTheSum) {
  torch::manual_seed(0);
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    net.register_parameter("p", torch::randn({3, 4}));
    torch::nn::Linear layer = net.register_module("layer", torch::nn::Linear(4, 2));
    return [layer](Net& net, const at::Tensor& x) mutable {
      const at::Tensor p = net.named_parameters()["p"];
      return layer(x.mm(p)) + (x.unsqueeze(2) * p).sum({1, 2}).unsqueeze(1);  // the second is no product that is known
    };
  });
  for (const at::ScalarType type : {torch::kDouble, torch::kFloat}) {
    net->to(type);
    const at::Tensor x = torch::randn({5, 3}).to(type);
    const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
    std::map<std::string, std::string> status;
    for (const PerSampleLayer& layer : gradients.layers()) status[layer.name] = to_string(layer.status);
    EXPECT_EQ(status, (std::map<std::string, std::string>{{"p", "not_observable"}, {"layer", "ok"}}));
    EXPECT_THAT(message_of([&] { gradients.gradient("p"); }), HasSubstr("uses beside"));
    EXPECT_EQ(per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().verify(false))
                  .parameters()
                  .size(),
              3u);
    const auto exact = per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().one_by_one(true));
    EXPECT_LE(relative_difference(exact.gradient("p"), one_by_one(*net, losses_of(net->forward(x))).at("p")),
              type == torch::kDouble ? 1e-10 : 1e-5);
  }
}

// Gradients of samples that cancel are no missing use.
TEST(UsesThatAreNotCaptured, AreNotSeenInRounding) {
  torch::manual_seed(0);
  torch::nn::Linear layer(30, 1);
  const auto signed_sum =
      likelihood("signed", [](const at::Tensor& output, const at::Tensor& sign) { return output.squeeze(1) * sign; });
  const at::Tensor half = torch::randn({100, 30});
  const Data data(torch::cat({half, half}), torch::cat({torch::ones({100}), -torch::ones({100})}));
  const auto gradients = per_sample_gradients({*layer, signed_sum, data});
  EXPECT_EQ(to_string(gradients.layers()[0].status), "ok") << gradients.layers()[0].detail;
}

// ---- leaving things as they were, and errors ----

TEST(PerSampleGradientsOf, AModelLeaveItAsItWas) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4), torch::nn::Dropout(),
                              torch::nn::Linear(4, 2));
  const Data data(torch::randn({6, 3}), torch::zeros({6}, torch::kLong));
  const auto norm = std::dynamic_pointer_cast<torch::nn::BatchNorm1dImpl>(model->ptr(1));
  const at::Tensor mean = norm->running_mean.clone();
  const auto gradients = per_sample_gradients({*model, categorical(), data});
  EXPECT_EQ(gradients.parameters().size(), 6u);
  EXPECT_TRUE(model->is_training());
  EXPECT_TRUE(torch::equal(norm->running_mean, mean));
  for (const at::Tensor& parameter : model->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(PerSampleGradientsOf, SomeLayersOnly) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  const Data data(torch::randn({6, 3}), torch::zeros({6}, torch::kLong));
  const auto gradients = per_sample_gradients({*model, categorical(), data}, PerSampleOptions().layers({"2"}));
  ASSERT_EQ(gradients.layers().size(), 1u);
  EXPECT_THAT(gradients.parameters(), testing::ElementsAre("2.weight", "2.bias"));
  EXPECT_THAT(message_of([&] { gradients.gram("0"); }), testing::AllOf(HasSubstr("'0'"), HasSubstr("2")));
}

TEST(PerSampleGradientsOf, BadArgumentsAreNamed) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  const Data data(torch::randn({6, 3}), torch::zeros({6}, torch::kLong));
  const auto with = [&](const PerSampleOptions& options) {
    return message_of([&] { per_sample_gradients({*model, categorical(), data}, options); });
  };
  EXPECT_THAT(message_of([&] { per_sample_gradients({*model, nullptr, data}); }), HasSubstr("likelihood is null"));
  EXPECT_THAT(message_of([&] {
                per_sample_gradients({*model, categorical(), Data(data.inputs[0])});
              }),
              HasSubstr("data.targets is undefined"));
  EXPECT_THAT(with(PerSampleOptions().max_bytes(0)), HasSubstr("max_bytes is 0"));
  EXPECT_THAT(with(PerSampleOptions().scale(2)), HasSubstr("scale is 2"));
  EXPECT_THAT(with(PerSampleOptions().layers({"third"})), HasSubstr("'third'"));
  const auto mean = likelihood("mean", [](const at::Tensor& output, const at::Tensor&) { return output.mean(); });
  EXPECT_THAT(message_of([&] {
                per_sample_gradients({*model, mean, data});
              }),
              testing::AllOf(HasSubstr("mean"), HasSubstr("[6]")));
  const auto gradients = per_sample_gradients({*model, categorical(), data});
  EXPECT_THAT(message_of([&] { gradients.gradient("0.weigth"); }),
              testing::AllOf(HasSubstr("'0.weigth'"), HasSubstr("0.weight, 0.bias")));

  Recorder recorder(*model);
  recorder.start();
  model->forward(data.inputs[0]).sum().backward();
  const Captured captured = recorder.take();
  EXPECT_THAT(message_of([&] { per_sample_gradients(*model, captured, 6); }), HasSubstr("RecorderOptions::operators"));
  EXPECT_THAT(message_of([&] { per_sample_gradients(*model, captured, 0); }), HasSubstr("samples is 0"));
  EXPECT_THAT(message_of([&] { per_sample_gradients(*model, captured, 6, PerSampleOptions().scale(0)); }),
              HasSubstr("scale is 0"));
  EXPECT_THAT(message_of([&] { per_sample_gradients(*model, captured, 6, PerSampleOptions().one_by_one(true)); }),
              HasSubstr("one_by_one"));
}

TEST(PerSampleGradientsOf, AnInputThatWasOverwrittenHaveNoNumbers) {
  torch::manual_seed(0);
  torch::nn::Linear layer(3, 4);
  at::Tensor x = torch::randn({6, 3});
  Recorder recorder(*layer, {.operators = true});
  recorder.start();
  layer->forward(x).sum().backward();
  const Captured captured = recorder.take();
  x.zero_();
  EXPECT_EQ(to_string(per_sample_gradients(*layer, captured, 6).layers()[0].status), "overwritten");
}

TEST(PerSampleGradientsOf, ALayerThatDidNotRunSaySo) {
  torch::manual_seed(0);
  struct Skipping : torch::nn::Module {
    torch::nn::Linear used{register_module("used", torch::nn::Linear(4, 4))};
    torch::nn::Linear skipped{register_module("skipped", torch::nn::Linear(4, 4))};
    torch::nn::Linear unused{register_module("unused", torch::nn::Linear(4, 4))};
    at::Tensor position = register_parameter("position", torch::ones({4}));
    at::Tensor forward(const at::Tensor& x) {
      unused(x);
      return used(x + position);
    }
  };
  const auto model = std::make_shared<Skipping>();
  const at::Tensor x = torch::randn({3, 4});
  const auto gradients = per_sample_gradients({*model, some_likelihood(), data_of(x)});
  std::map<std::string, std::string> status;
  for (const PerSampleLayer& layer : gradients.layers()) status[layer.name] = to_string(layer.status);
  EXPECT_EQ(status,
            (std::map<std::string, std::string>{
                {"used", "ok"}, {"skipped", "not_run"}, {"unused", "no_gradient"}, {"position", "not_observable"}}));
  // x + position is no product, but its gradients can be had sample by sample.
  const auto exact = per_sample_gradients({*model, some_likelihood(), data_of(x)}, PerSampleOptions().one_by_one(true));
  const auto reference = one_by_one(*model, losses_of(model->forward(x)));
  EXPECT_LE(relative_difference(exact.gradient("position"), reference.at("position")), 1e-6);
}

}  // namespace
}  // namespace dds
