#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/recorder.hpp>
#include <dds/suspend_recording.hpp>
#include <thread>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using test::Net;
using test::relative_difference;
using test::summed_loss;
using test::to_double;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kRowTolerance = 1e-12;  // relative, fp64

const CapturedLayer* find(const Captured& captured, const std::string& name) {
  for (const CapturedLayer& layer : captured.layers) {
    if (layer.layer == name) return &layer;
  }
  return nullptr;
}

std::vector<std::string> names(const Captured& captured) {
  std::vector<std::string> result;
  for (const CapturedLayer& layer : captured.layers) result.push_back(layer.layer);
  return result;
}

// ---- every layer kind ----

class EveryKind : public testing::TestWithParam<test::LayerKind> {};

TEST_P(EveryKind, RowsAreThoseThatAutogradGives) {
  torch::manual_seed(1);
  const auto net = test::make_net(GetParam());
  net->to(torch::kDouble);
  const at::Tensor x = to_double(GetParam().input());

  Recorder recorder(*net);
  recorder.start();
  const at::Tensor loss = summed_loss(net->forward(x));
  const at::Tensor reference = torch::autograd::grad({loss}, {net->seen}, {}, /*retain_graph=*/true)[0];
  recorder.stop();
  // The reference pass went through the graph up to the output, not beyond: whether the hook there saw it is autograd's
  // affair.
  const Captured captured = recorder.take();
  ASSERT_THAT(captured.errors, ElementsAre());
  const CapturedLayer* layer = find(captured, GetParam().layer);
  ASSERT_NE(layer, nullptr) << testing::PrintToString(names(captured));
  EXPECT_EQ(layer->kind, GetParam().kind);
  ASSERT_EQ(layer->calls.size(), 1u);
  CapturedCall call = layer->calls.front();
  call.take_gradient();
  loss.backward();

  EXPECT_EQ(call.output_features, GetParam().features);
  EXPECT_TRUE(call.output_intact());
  EXPECT_TRUE(call.input_intact());
  EXPECT_TRUE(torch::equal(call.output, net->seen));
  EXPECT_FALSE(call.output.requires_grad());
  ASSERT_TRUE(call.gradient().defined());
  EXPECT_LE(relative_difference(call.gradient(), reference), kRowTolerance);
  const at::Tensor rows = as_rows(call.output, call.output_features);
  EXPECT_EQ(rows.numel(), call.output.numel());
  EXPECT_LE(torch::linalg_matrix_rank(rows).item<std::int64_t>(), layer->output_bound.rank);
  EXPECT_LE(torch::linalg_matrix_rank(as_rows(call.gradient(), call.output_features)).item<std::int64_t>(),
            layer->gradient_bound.rank);
}

class EveryKindThatRunsAgain : public testing::TestWithParam<test::LayerKind> {};

// The layer run again on the captured input, and its weights' gradient for the captured delta: what training saw.
TEST_P(EveryKindThatRunsAgain, InputAndDeltaReproduceTheGradientOfTheParameters) {
  torch::manual_seed(2);
  const auto net = test::make_net(GetParam());
  net->to(torch::kDouble);
  Recorder recorder(*net);
  recorder.start();
  summed_loss(net->forward(to_double(GetParam().input()))).backward();
  const Captured captured = recorder.take();
  const CapturedLayer* layer = find(captured, GetParam().layer);
  ASSERT_NE(layer, nullptr);
  const CapturedCall& call = layer->calls.front();
  const at::Tensor again = net->forward(call.inputs.front());
  const auto gradients = torch::autograd::grad({again}, net->parameters(), {call.gradient()});
  const auto parameters = net->parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_LE(relative_difference(gradients[i], parameters[i].grad()), kRowTolerance) << i;
  }
}

TEST_P(EveryKind, PassesWithoutGradModeAreNotCaptured) {
  const auto net = test::make_net(GetParam());
  Recorder recorder(*net);
  recorder.start();
  {
    const torch::NoGradGuard no_grad;
    net->forward(GetParam().input());
  }
  const Captured captured = recorder.take();
  EXPECT_THAT(captured.errors, ElementsAre());
  ASSERT_FALSE(captured.layers.empty());
  for (const CapturedLayer& layer : captured.layers) EXPECT_EQ(to_string(layer.status), "not_run");
}

TEST_P(EveryKind, ATrainedNetworkIsBitForBitTheSame) {
  const auto train = [&](bool attached) {
    torch::manual_seed(3);
    const auto net = test::make_net(GetParam());
    torch::optim::Adam optimizer(net->parameters(), 0.05);
    Recorder recorder(*net);
    for (int step = 0; step < 5; ++step) {
      const at::Tensor x = GetParam().input();
      if (attached) recorder.start();
      optimizer.zero_grad();
      summed_loss(net->forward(x)).backward();
      optimizer.step();
      if (attached) recorder.take();
    }
    return torch::nn::utils::parameters_to_vector(net->parameters());
  };
  EXPECT_TRUE(torch::equal(train(false), train(true)));
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, testing::ValuesIn(test::layer_kinds()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Kinds, EveryKindThatRunsAgain, testing::ValuesIn(test::layer_kinds_that_run_again()),
                         [](const auto& info) { return info.param.name; });

// ---- attention: products with parts of one matrix ----

TEST(Attention, SelfAttentionHasTheJointProjectionAndTheOutputProjection) {
  torch::manual_seed(0);
  const auto build = [](Net& net) -> Net::Run {
    auto attention =
        net.register_module("attention", torch::nn::MultiheadAttention(torch::nn::MultiheadAttentionOptions(8, 2)));
    return [attention](Net&, const at::Tensor& x) mutable { return std::get<0>(attention->forward(x, x, x)); };
  };
  Net net(build);
  net.to(torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  summed_loss(net.forward(torch::randn({5, 3, 8}, torch::kDouble))).backward();
  const Captured captured = recorder.take();
  const auto parameters = net.named_parameters();
  for (const auto& [site, weight] :
       std::vector<std::pair<std::string, std::string>>{{"attention.in_proj_weight", "attention.in_proj_weight"},
                                                        {"attention.out_proj", "attention.out_proj.weight"}}) {
    const CapturedLayer* layer = find(captured, site);
    ASSERT_NE(layer, nullptr) << testing::PrintToString(names(captured));
    ASSERT_EQ(layer->calls.size(), 1u);
    const CapturedCall& call = layer->calls[0];
    const at::Tensor a = as_rows(call.inputs[0], call.input_features),
                     delta = as_rows(call.gradient(), call.output_features);
    EXPECT_LE(relative_difference(delta.t().mm(a), parameters[weight].grad()), kRowTolerance) << site;
  }
}

TEST(Attention, CrossAttentionHasASiteForEachPartOfTheProjection) {
  torch::manual_seed(0);
  const auto build = [](Net& net) -> Net::Run {
    auto attention =
        net.register_module("attention", torch::nn::MultiheadAttention(torch::nn::MultiheadAttentionOptions(8, 2)));
    return
        [attention](Net&, const at::Tensor& x) mutable { return std::get<0>(attention->forward(x, x.cos(), x.sin())); };
  };
  Net net(build);
  net.to(torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  summed_loss(net.forward(torch::randn({5, 3, 8}, torch::kDouble))).backward();
  const Captured captured = recorder.take();
  std::vector<at::Tensor> parts;
  for (const std::string site :
       {"attention.in_proj_weight", "attention.in_proj_weight#2", "attention.in_proj_weight#3"}) {
    const CapturedLayer* layer = find(captured, site);
    ASSERT_NE(layer, nullptr) << testing::PrintToString(names(captured));
    const CapturedCall& call = layer->calls.at(0);
    parts.push_back(
        as_rows(call.gradient(), call.output_features).t().mm(as_rows(call.inputs[0], call.input_features)));
  }
  EXPECT_LE(relative_difference(torch::cat(parts), net.named_parameters()["attention.in_proj_weight"].grad()),
            kRowTolerance);
}

// ---- how layers are really used ----

struct TwoLayers : torch::nn::Module {
  torch::nn::Linear first{nullptr}, second{nullptr};
  TwoLayers() {
    first = register_module("first", torch::nn::Linear(4, 4));
    second = register_module("second", torch::nn::Linear(4, 4));
    to(torch::kDouble);
  }
  at::Tensor forward(const at::Tensor& x) { return second(first(x).relu_()); }
};

TEST(Recorder, AnInPlaceActivationDoesNotChangeTheRowsBeforeIt) {
  torch::manual_seed(0);
  TwoLayers net;
  const at::Tensor x = torch::randn({6, 4}, torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  net.forward(x).sum().backward();
  const Captured captured = recorder.take();
  ASSERT_THAT(names(captured), ElementsAre("first", "second"));
  const CapturedCall &first = captured.layers[0].calls[0], &second = captured.layers[1].calls[0];
  const at::Tensor pre = torch::nn::functional::linear(x, net.first->weight, net.first->bias);
  EXPECT_TRUE(first.output_intact());
  EXPECT_TRUE(torch::equal(first.output, pre));
  EXPECT_TRUE(torch::equal(second.inputs[0], pre.relu()));
  const at::Tensor delta = torch::ones({6, 4}, torch::kDouble).mm(net.second->weight) * (pre > 0);
  EXPECT_LE(relative_difference(first.gradient(), delta), kRowTolerance);
}

TEST(Recorder, AWriteThatIsNotSeenAsAnOperatorIsNoticedByItsVersion) {
  TwoLayers net;
  at::Tensor x = torch::randn({6, 4}, torch::kDouble);
  Recorder recorder(net, {.layers = {"first"}});
  recorder.start();
  const at::Tensor output = net.first(x);
  recorder.stop();
  Captured captured = recorder.take();
  x.add_(1);  // after the recording
  EXPECT_FALSE(captured.layers[0].calls[0].input_intact());
  EXPECT_TRUE(captured.layers[0].calls[0].output_intact());
}

TEST(Recorder, ALayerThatRunsTwiceHasTwoCalls) {
  torch::manual_seed(0);
  TwoLayers net;
  const at::Tensor x = torch::randn({3, 4}, torch::kDouble);
  Recorder recorder(net, {.layers = {"first"}});
  recorder.start();
  net.first(net.first(x).tanh()).sum().backward();
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.layers[0].calls.size(), 2u);
  at::Tensor gradient = torch::zeros({4, 4}, torch::kDouble);
  for (const CapturedCall& call : captured.layers[0].calls) gradient += call.gradient().t().mm(call.inputs[0]);
  EXPECT_LE(relative_difference(gradient, net.first->weight.grad()), kRowTolerance);
}

TEST(Recorder, BackwardTwiceAdds) {
  TwoLayers net;
  Recorder recorder(net);
  recorder.start();
  const at::Tensor loss = net.forward(torch::randn({3, 4}, torch::kDouble)).pow(2).sum();
  loss.backward({}, /*keep_graph=*/true);
  const Captured captured = recorder.take();
  const at::Tensor once = captured.layers[1].calls[0].gradient().clone();
  loss.backward();
  EXPECT_EQ(captured.layers[1].calls[0].backwards(), 2);
  EXPECT_LE(relative_difference(captured.layers[1].calls[0].gradient(), 2 * once), kRowTolerance);
}

TEST(Recorder, ForwardsWithoutABackwardAreDroppedWhereOthersHaveOne) {
  TwoLayers net;
  Recorder recorder(net);
  recorder.start();
  for (int i = 0; i < 3; ++i) net.forward(torch::randn({5, 4}, torch::kDouble));  // a roll-out
  net.forward(torch::randn({2, 4}, torch::kDouble)).sum().backward();
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.layers.size(), 2u);
  for (const CapturedLayer& layer : captured.layers) {
    EXPECT_EQ(layer.dropped, 3);
    ASSERT_EQ(layer.calls.size(), 1u);
    EXPECT_EQ(layer.calls[0].output.size(0), 2);
  }
}

TEST(Recorder, WhatTheBackwardItselfRunsIsNoLayer) {
  TwoLayers net;
  Recorder recorder(net);
  recorder.start();
  const at::Tensor loss = net.forward(torch::randn({3, 4}, torch::kDouble)).pow(2).sum();
  const auto gradients = torch::autograd::grad({loss}, net.parameters(), {}, true, /*create_graph=*/true);
  at::Tensor penalty = torch::zeros({}, torch::kDouble);
  for (const at::Tensor& gradient : gradients) penalty = penalty + gradient.pow(2).sum();
  penalty.backward();
  const Captured captured = recorder.take();
  ASSERT_THAT(names(captured), ElementsAre("first", "second"));
  for (const CapturedLayer& layer : captured.layers) EXPECT_EQ(layer.calls.size(), 1u);
}

TEST(Recorder, TiedWeightsHaveASiteForEachUse) {
  torch::manual_seed(0);
  struct Tied : torch::nn::Module {
    torch::nn::Embedding embedding{nullptr};
    torch::nn::Linear head{nullptr};
    Tied() {
      embedding = register_module("embedding", torch::nn::Embedding(7, 4));
      head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 7).bias(false)));
      head->weight = embedding->weight;  // the registered head.weight is now a ghost
      to(torch::kDouble);
    }
    at::Tensor forward(const at::Tensor& x) { return head(embedding(x).tanh()); }
  } net;
  Recorder recorder(net);
  recorder.start();
  summed_loss(net.forward(torch::randint(0, 7, {5}, torch::kLong))).backward();
  const Captured captured = recorder.take();
  ASSERT_GE(captured.layers.size(), 2u);
  EXPECT_EQ(captured.layers[0].layer, "embedding");
  EXPECT_EQ(captured.layers[1].layer, "embedding#2");
  const CapturedCall &lookup = captured.layers[0].calls[0], &product = captured.layers[1].calls[0];
  at::Tensor gradient = product.gradient().t().mm(product.inputs[0]);
  gradient.index_add_(0, lookup.inputs[0], lookup.gradient());
  EXPECT_LE(relative_difference(gradient, net.embedding->weight.grad()), kRowTolerance);
  EXPECT_EQ(to_string(find(captured, "head")->status), "not_run");
}

TEST(Recorder, TiedWeightsThatStayRegisteredKeepTheirNames) {
  struct Tied : torch::nn::Module {
    torch::nn::Embedding embedding{nullptr};
    torch::nn::Linear head{nullptr};
    Tied() {
      embedding = register_module("embedding", torch::nn::Embedding(7, 4));
      head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 7).bias(false)));
      head->weight.set_data(embedding->weight.data());
    }
    at::Tensor forward(const at::Tensor& x) { return head(embedding(x).tanh()); }
  } net;
  Recorder recorder(net);
  recorder.start();
  net.forward(torch::randint(0, 7, {5}, torch::kLong)).sum().backward();
  EXPECT_THAT(names(recorder.take()), ElementsAre("embedding", "head"));
}

TEST(Recorder, ParametersThatMovedAreFoundAgain) {
  TwoLayers net;
  Recorder recorder(net);
  net.to(torch::kFloat);
  recorder.start();
  net.forward(torch::randn({3, 4})).sum().backward();
  const Captured captured = recorder.take();
  EXPECT_EQ(captured.layers[0].calls.size(), 1u);
  EXPECT_EQ(captured.layers[0].calls[0].output.scalar_type(), torch::kFloat);
}

TEST(Recorder, TapMakesAnyTensorASite) {
  torch::manual_seed(0);
  Net net([](Net& net) -> Net::Run {
    auto layer = net.register_module("layer", torch::nn::Linear(4, 3));
    return [layer](Net&, const at::Tensor& x) mutable { return tap("stream", layer->forward(x).tanh()).pow(2); };
  });
  const at::Tensor x = torch::randn({5, 4});
  {
    Recorder recorder(net);
    recorder.start();
    net.forward(x).sum().backward();
    const Captured captured = recorder.take();
    ASSERT_THAT(names(captured), ElementsAre("layer", "stream"));
    const CapturedLayer& stream = captured.layers[1];
    EXPECT_EQ(stream.kind, "Tap");
    EXPECT_TRUE(torch::allclose(stream.calls[0].gradient(), 2 * stream.calls[0].output));
  }
  for (const auto& [pattern, expected] :
       std::vector<std::pair<std::string, std::vector<std::string>>>{{"layer", {"layer"}}, {"tap:str*", {"stream"}}}) {
    Recorder recorder(net, {.layers = {pattern}});
    recorder.start();
    net.forward(x).sum().backward();
    EXPECT_EQ(names(recorder.take()), expected);
  }
  EXPECT_TRUE(tap("nobody listens", x).is_same(x));
}

TEST(Recorder, DeepLinearChainsAreBoundedByTheirNarrowestLayer) {
  torch::manual_seed(0);
  torch::nn::Sequential net(torch::nn::Linear(torch::nn::LinearOptions(9, 8).bias(false)),
                            torch::nn::Linear(torch::nn::LinearOptions(8, 3).bias(false)),
                            torch::nn::Linear(torch::nn::LinearOptions(3, 7).bias(false)), torch::nn::Linear(7, 6),
                            torch::nn::Tanh(), torch::nn::Linear(6, 10));
  net->to(torch::kDouble);
  Recorder recorder(*net);
  recorder.start();
  const at::Tensor output = net->forward(torch::randn({50, 9}, torch::kDouble));
  torch::nn::functional::cross_entropy(output, torch::zeros({50}, torch::kLong)).backward();
  const Captured captured = recorder.take();
  std::vector<std::int64_t> forward, backward;
  for (const CapturedLayer& layer : captured.layers) {
    const CapturedCall& call = layer.calls[0];
    forward.push_back(layer.output_bound.rank);
    backward.push_back(layer.gradient_bound.rank);
    EXPECT_EQ(torch::linalg_matrix_rank(call.output, 1e-10).item<std::int64_t>(), layer.output_bound.rank)
        << layer.layer;
    EXPECT_EQ(torch::linalg_matrix_rank(call.gradient(), 1e-10).item<std::int64_t>(), layer.gradient_bound.rank)
        << layer.layer;
  }
  EXPECT_THAT(forward, ElementsAre(8, 3, 3, 4, 7));   // + 1 for each bias
  EXPECT_THAT(backward, ElementsAre(3, 3, 6, 6, 9));  // the last: a softmax's gradient sums to zero
}

TEST(Recorder, BoundsDoNotReachThroughWhatIsNotAProductOfTheSameRows) {
  torch::manual_seed(0);
  struct Bottleneck : torch::nn::Module {
    torch::nn::Linear narrow{register_module("narrow", torch::nn::Linear(2, 16))};
    torch::nn::Linear wide{register_module("wide", torch::nn::Linear(16, 16))};
    at::Tensor mix = register_parameter("mix", torch::randn({4, 8}));
    at::Tensor forward(const at::Tensor& x) { return torch::matmul(mix, wide(narrow(x).relu_())); }
  } net;
  net.to(torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  summed_loss(net.forward(torch::randn({30, 8, 2}, torch::kDouble))).backward();
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.layers.size(), 3u);
  for (const CapturedLayer& layer : captured.layers) {
    const CapturedCall& call = layer.calls.at(0);
    const at::Tensor rows = as_rows(call.output, call.output_features),
                     delta = as_rows(call.gradient(), call.output_features);
    EXPECT_LE(torch::linalg_matrix_rank(rows).item<std::int64_t>(), layer.output_bound.rank) << layer.layer;
    EXPECT_LE(torch::linalg_matrix_rank(delta).item<std::int64_t>(), layer.gradient_bound.rank) << layer.layer;
  }
  EXPECT_EQ(find(captured, "narrow")->output_bound.rank, 3);
  EXPECT_EQ(find(captured, "wide")->output_bound.rank, 16);    // a ReLU lies between
  EXPECT_EQ(find(captured, "wide")->gradient_bound.rank, 16);  // the product mixes positions, not features
}

TEST(Recorder, StoppedOnAnotherThreadStartsAgainWithoutSeeingDouble) {
  TwoLayers net;
  const at::Tensor x = torch::randn({3, 4}, torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  std::thread([&] { recorder.stop(); }).join();
  for (int i = 0; i < 2; ++i) {
    recorder.start();
    net.forward(x).sum().backward();
    EXPECT_EQ(recorder.take().layers[0].calls.size(), 1u);
  }
}

// ---- loss operators ----

TEST(Recorder, SeesHowTheLossReduces) {
  namespace F = torch::nn::functional;
  TwoLayers net;
  const at::Tensor x = torch::randn({5, 4}, torch::kDouble);
  const at::Tensor classes = torch::tensor({0, 1, -100, 3, 2}, torch::kLong);
  const auto observe = [&](auto loss) {
    Recorder recorder(net);
    recorder.start();
    loss(net.forward(x)).backward();
    return recorder.take().losses;
  };
  auto losses = observe([&](const at::Tensor& y) { return F::cross_entropy(y, classes); });
  ASSERT_EQ(losses.size(), 1u);
  EXPECT_EQ(losses[0].reduction, CapturedLoss::Reduction::Mean);
  EXPECT_EQ(losses[0].terms.item<double>(), 4);
  EXPECT_EQ(losses[0].targets, 5);
  losses = observe([&](const at::Tensor& y) {
    return F::nll_loss(F::log_softmax(y, 1), classes, F::NLLLossFuncOptions().reduction(torch::kSum));
  });
  ASSERT_EQ(losses.size(), 1u);
  EXPECT_EQ(losses[0].reduction, CapturedLoss::Reduction::Sum);
  losses = observe([&](const at::Tensor& y) { return F::mse_loss(y, x); });
  ASSERT_EQ(losses.size(), 1u);
  EXPECT_EQ(losses[0].terms.item<double>(), 20);
  losses = observe([&](const at::Tensor& y) { return y.sum(); });
  EXPECT_TRUE(losses.empty());
}

// ---- choosing, detaching, errors ----

TEST(Recorder, ChoosesLayersByPatternAndPredicate) {
  TwoLayers net;
  EXPECT_THAT(Recorder(net).layers(), ElementsAre("first", "second"));
  EXPECT_THAT(Recorder(net, {.layers = {"f*"}}).layers(), ElementsAre("first"));
  EXPECT_THAT(Recorder(net, {.layers = {"?econd", "first"}}).layers(), ElementsAre("first", "second"));
  RecorderOptions options;
  options.select = [](const std::string& name) { return name == "second"; };
  EXPECT_THAT(Recorder(net, options).layers(), ElementsAre("second"));

  EXPECT_THAT(message_of([&] { Recorder(net, {.layers = {"third"}}); }),
              testing::AllOf(HasSubstr("'third'"), HasSubstr("first, second")));
  options.select = [](const std::string&) { return false; };
  EXPECT_THAT(message_of([&] { Recorder(net, options); }), HasSubstr("first, second"));
  torch::nn::ReLU empty;
  EXPECT_THAT(message_of([&] { Recorder recorder(*empty); }), HasSubstr("no parameters"));
}

TEST(Recorder, LayersThatDidNotRunSaySo) {
  struct Skipping : torch::nn::Module {
    torch::nn::Linear used{register_module("used", torch::nn::Linear(4, 4))};
    torch::nn::Linear skipped{register_module("skipped", torch::nn::Linear(4, 4))};
    at::Tensor position = register_parameter("position", torch::ones({4}));
    at::Tensor forward(const at::Tensor& x) { return used(x + position); }
  } net;
  Recorder recorder(net);
  recorder.start();
  net.forward(torch::randn({2, 4})).sum().backward();
  const Captured captured = recorder.take();
  EXPECT_EQ(to_string(find(captured, "skipped")->status), "not_run");
  EXPECT_EQ(to_string(find(captured, "position")->status), "not_observable");
  EXPECT_THAT(find(captured, "position")->detail, HasSubstr("aten::add"));
}

TEST(Recorder, WhatIsThrownWhileCapturingReachesTheLibrarysOwnCall) {
  TwoLayers net;
  RecorderOptions options;
  options.on_call = [](const std::string& layer) {
    if (layer == "second") throw std::runtime_error("planted");
  };
  Recorder recorder(net, options);
  recorder.start();
  EXPECT_NO_THROW(net.forward(torch::randn({3, 4}, torch::kDouble)).sum().backward());
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.errors.size(), 1u);
  EXPECT_THAT(captured.errors[0], HasSubstr("planted"));
  EXPECT_EQ(captured.layers[0].calls.size(), 1u);
  recorder.start();  // nesting was unwound: the next recording is whole
  options.on_call = nullptr;
  net.forward(torch::randn({3, 4}, torch::kDouble)).sum().backward();
  EXPECT_EQ(find(recorder.take(), "first")->calls.size(), 1u);
}

TEST(Recorder, IsGoneAfterDestructionWhateverWasThrown) {
  TwoLayers net;
  const at::Tensor x = torch::randn({3, 4}, torch::kDouble);
  int calls = 0;
  RecorderOptions options;
  options.on_call = [&](const std::string&) { ++calls; };
  try {
    Recorder recorder(net, options);
    recorder.start();
    net.forward(torch::randn({3, 5}, torch::kDouble));  // throws: 5 features instead of 4
    FAIL();
  } catch (const c10::Error&) {
  }
  at::Tensor kept;
  {
    Recorder recorder(net, options);
    recorder.start();
    kept = net.forward(x).sum();
  }
  const int before = calls;
  kept.backward();  // hooks of a recorder that is gone
  net.forward(x).sum().backward();
  EXPECT_EQ(calls, before);
}

TEST(Recorder, TwoRecordersSeeTheirOwnModelsOnly) {
  TwoLayers a, b;
  const at::Tensor x = torch::randn({3, 4}, torch::kDouble);
  Recorder of_a(a), of_b(b);
  of_a.start();
  of_b.start();
  EXPECT_THAT(message_of([&] { of_a.start(); }), HasSubstr("under way"));
  (a.forward(x).sum() + b.forward(x).sum() + b.forward(x).sum()).backward();
  EXPECT_EQ(of_a.take().layers[0].calls.size(), 1u);
  EXPECT_EQ(of_b.take().layers[0].calls.size(), 2u);
}

TEST(Recorder, HearsItsOwnThreadUnlessToldOtherwise) {
  TwoLayers net;
  const auto run = [&] { net.forward(torch::randn({3, 4}, torch::kDouble)).sum().backward(); };
  for (const bool all_threads : {false, true}) {
    RecorderOptions options;
    options.all_threads = all_threads;
    Recorder recorder(net, options);
    recorder.start();
    run();
    std::thread(run).join();
    EXPECT_EQ(recorder.take().layers[0].calls.size(), all_threads ? 2u : 1u);
  }
}

TEST(Recorder, SuspendedOrExclusive) {
  TwoLayers net;
  const at::Tensor x = torch::randn({3, 4}, torch::kDouble);
  Recorder recorder(net), alone(net, {.exclusive = true});
  recorder.start();
  {
    const SuspendRecording suspended;
    net.forward(x).sum().backward();
  }
  alone.start();
  net.forward(x).sum().backward();
  EXPECT_EQ(alone.take().layers[0].calls.size(), 1u);
  EXPECT_EQ(to_string(recorder.take().layers[0].status), "not_run");
}

}  // namespace
}  // namespace dds
