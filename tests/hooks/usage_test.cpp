// Every way a layer is really used: the rows are right, and the training is bit for bit what it is without us.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <dds/hooks.hpp>
#include <dds/log.hpp>
#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <optional>
#include <set>
#include <thread>

#include "tests/hooks/usages.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::relative_difference;
using test::Training;
using testing::ElementsAre;

class EveryUsage : public testing::TestWithParam<test::Usage> {};

/// False where this LibTorch has no kernels for it on the CPU: half precision in 1.13.
bool runs(const test::Usage& usage) {
  try {
    usage.make().step();
    return true;
  } catch (const c10::Error& error) {
    if (std::string(error.what()).find("not implemented for") == std::string::npos &&
        std::string(error.what()).find("Currently, AutocastCPU only support") == std::string::npos) {
      throw;
    }
    return false;
  }
}

enum class Attached { Nothing, Recorder, Monitor, Hooks };

/// All that the training leaves: parameters, buffers and gradients.
std::vector<at::Tensor> run(const test::Usage& usage, Attached attached) {
  torch::manual_seed(5);
  const Training training = usage.make();
  std::optional<Recorder> recorder;
  std::optional<Monitor> monitor;
  std::vector<HookHandle> hooks;
  using Module = torch::nn::Module;
  if (attached == Attached::Recorder) recorder.emplace(*training.model);
  if (attached == Attached::Monitor) {
    monitor.emplace(*training.model, MonitorOptions().every(1).reduction(Reduction::Sum),
                    std::make_shared<log::Memory>());
  }
  if (attached == Attached::Hooks) {
    const auto three = [](const Module&, const std::string&, const Tensors&, const Tensors&) {};
    for (Module* model : {training.model.get(), training.others.empty() ? nullptr : training.others[0].get()}) {
      if (!model || model->children().empty()) continue;
      hooks.push_back(register_forward_pre_hook(*model, "*", [](const Module&, const std::string&, const Tensors&) {}));
      hooks.push_back(register_forward_hook(*model, "*", three));
      hooks.push_back(register_full_backward_hook(*model, "*", three));
    }
  }
  for (int i = 0; i < 4; ++i) {
    if (recorder) recorder->start();
    {
      std::optional<Monitor::Step> step;
      if (monitor) step.emplace(monitor->step());
      training.step();
    }
    if (recorder) {
      EXPECT_THAT(recorder->take().errors, ElementsAre());
    }
    if (monitor) monitor->flush();
  }
  for (const HookHandle& handle : hooks) EXPECT_THAT(handle.errors(), ElementsAre());
  std::vector<at::Tensor> left;
  std::vector<std::shared_ptr<Module>> models = training.others;
  models.push_back(training.model);
  for (const auto& model : models) {
    for (const at::Tensor& parameter : model->parameters()) {
      left.push_back(parameter.detach().clone());
      if (parameter.grad().defined()) left.push_back(parameter.grad().clone());
    }
    for (const at::Tensor& buffer : model->buffers()) left.push_back(buffer.clone());
  }
  return left;
}

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const at::Tensor& x, const at::Tensor& y) { return x.equal(y); });
}

TEST_P(EveryUsage, TrainsBitForBitTheSame) {
  if (!runs(GetParam())) GTEST_SKIP() << "this LibTorch has no kernels for it";
  const auto bare = run(GetParam(), Attached::Nothing);
  ASSERT_TRUE(same(bare, run(GetParam(), Attached::Nothing))) << "not deterministic by itself";
  EXPECT_TRUE(same(bare, run(GetParam(), Attached::Recorder)));
  EXPECT_TRUE(same(bare, run(GetParam(), Attached::Monitor)));
  EXPECT_TRUE(same(bare, run(GetParam(), Attached::Hooks)));
}

/// The gradient of a weight, out x in, from the rows of one call.
at::Tensor from_rows(const CapturedLayer& layer, const CapturedCall& call, const at::Tensor& like) {
  const at::Tensor delta = as_rows(call.gradient(), call.output_features).to(torch::kDouble);
  if (layer.calls.front().op.find("embedding") != std::string::npos) {
    return torch::zeros(like.sizes(), torch::kDouble).index_add(0, call.inputs[0].flatten(), delta);
  }
  return delta.t().mm(as_rows(call.inputs[0], call.input_features).to(torch::kDouble));
}

TEST_P(EveryUsage, RowsAreThoseOfTheGradients) {
  if (!runs(GetParam())) GTEST_SKIP() << "this LibTorch has no kernels for it";
  torch::manual_seed(5);
  const Training training = GetParam().make();
  Recorder recorder(*training.model);
  recorder.start();
  training.step();
  const Captured captured = recorder.take();
  ASSERT_THAT(captured.errors, ElementsAre());
  std::map<std::string, std::size_t> calls;
  std::map<std::string, const CapturedLayer*> layers;
  for (const CapturedLayer& layer : captured.layers) {
    if (layer.calls.empty()) continue;
    calls[layer.layer] = layer.calls.size();
    layers[layer.layer] = &layer;
    for (const CapturedCall& call : layer.calls) {
      EXPECT_GE(call.backwards(), 1) << layer.layer;
      EXPECT_TRUE(call.output_intact()) << layer.layer;
    }
  }
  EXPECT_EQ(calls, GetParam().calls);
  for (const auto& [name, sites] : GetParam().sums) {
    const at::Tensor weight = training.model->named_parameters()[name];
    at::Tensor sum = torch::zeros(weight.sizes(), torch::kDouble);
    for (const std::string& site : sites) {
      for (const CapturedCall& call : layers.at(site)->calls) sum += from_rows(*layers.at(site), call, weight);
    }
    EXPECT_LE(relative_difference(sum, weight.grad().to(torch::kDouble)), 1e-5) << name;  // fp32
  }
}

// Every operator that took a parameter in grad mode was given to a site, or is known not to run a layer.
TEST_P(EveryUsage, IsAttributed) {
  if (!runs(GetParam())) GTEST_SKIP() << "this LibTorch has no kernels for it";
  torch::manual_seed(5);
  const Training training = GetParam().make();
  std::map<std::string, std::size_t> captured;
  std::set<std::string> otherwise;
  for (const Attribution& use : attribute(*training.model, training.step)) {
    if (use.outcome == Attribution::Outcome::Captured) captured[use.site] += static_cast<std::size_t>(use.count);
    if (use.outcome == Attribution::Outcome::NotCaptured) otherwise.insert(use.layer);
  }
  EXPECT_EQ(otherwise, GetParam().used_otherwise);
  for (const auto& [site, calls] : GetParam().calls) EXPECT_GE(captured[site], calls) << site;
}

INSTANTIATE_TEST_SUITE_P(Usages, EveryUsage, testing::ValuesIn(test::all_usages()),
                         [](const auto& info) { return info.param.name; });

// ---- what is particular to one usage ----

TEST(Usage, LayersMayBeFrozenOnTheWayAndKeepTheirRows) {
  torch::manual_seed(0);
  const Training training = test::usages::frozen_and_unfrozen();
  Recorder recorder(*training.model);
  for (const bool wanted : {true, false, true}) {
    recorder.start();
    training.step();
    const Captured captured = recorder.take();
    ASSERT_EQ(captured.layers.size(), 2u);
    // A frozen weight has rows and gradients all the same: its bias is trained, and the layer before it.
    EXPECT_TRUE(captured.layers[1].calls[0].gradient().defined());
    EXPECT_EQ(training.model->named_parameters()["second.weight"].requires_grad(), wanted);
  }
}

TEST(Usage, DerivedWeightsHaveTheGradientsOfWhatTheyAreComputedFrom) {
  torch::manual_seed(0);
  const Training training = test::usages::derived_weights();
  Recorder recorder(*training.model);
  recorder.start();
  training.step();
  const Captured captured = recorder.take();
  const auto at = [&](const std::string& site) -> const CapturedCall& {
    for (const CapturedLayer& layer : captured.layers) {
      if (layer.layer == site) return layer.calls.at(0);
    }
    throw std::out_of_range(site);
  };
  const auto of_weight = [&](const CapturedCall& call) {
    return as_rows(call.gradient(), call.output_features).t().mm(as_rows(call.inputs[0], call.input_features));
  };
  auto parameters = training.model->named_parameters();
  // W = B A: dB = dW A^T. The step has moved A by Adam's 0.02 at most; the gradient is that before it.
  const CapturedCall& adapter = at("b");
  EXPECT_EQ(of_weight(adapter).sizes(), at::IntArrayRef({5, 5}));
  EXPECT_LE(relative_difference(of_weight(at("base")), of_weight(adapter)), 1e-6);  // the same input and delta
}

TEST(Usage, FlattenedParametersHaveTheGradientsOfTheirParts) {
  torch::manual_seed(0);
  const Training training = test::usages::flattened_parameters();
  Recorder recorder(*training.model);
  recorder.start();
  training.step();
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.layers.size(), 2u);
  std::vector<at::Tensor> parts;
  for (const CapturedLayer& layer : captured.layers) {
    parts.push_back(layer.calls[0].inputs[0].t().mm(layer.calls[0].gradient()).flatten());
  }
  EXPECT_LE(relative_difference(torch::cat(parts), training.model->named_parameters()["flat"].grad()), 1e-5);
}

TEST(Usage, AScriptModuleIsCapturedOrReportedOnceItIsOptimised) {
  torch::manual_seed(0);
  const Training training = test::usages::script_in_the_middle();
  Recorder recorder(*training.model);
  for (int step = 0; step < 4; ++step) {
    recorder.start();
    training.step();
    const Captured captured = recorder.take();
    ASSERT_EQ(captured.layers.size(), 2u);
    const CapturedLayer& script = captured.layers[1];
    EXPECT_EQ(script.layer, "script");
    if (script.calls.empty()) {
      EXPECT_FALSE(to_string(script.status).empty());
      EXPECT_FALSE(script.detail.empty());
    } else {
      // Optimised, it may run without a graph of its own: then there are no gradients, and the call says so.
      EXPECT_EQ(script.calls[0].wants_gradient, script.calls[0].backwards() > 0);
    }
  }
}

TEST(Usage, ThreadsThatEachTrainAModelSeeTheirOwn) {
  const auto train = [](std::uint64_t seed, bool attached) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    torch::nn::Linear first(4, 6), second(6, 3);
    torch::nn::Sequential net(first, torch::nn::Tanh(), second);
    {
      const torch::NoGradGuard no_grad;
      for (at::Tensor& parameter : net->parameters()) parameter.normal_(0, 0.5, generator);
    }
    torch::optim::Adam optimizer(net->parameters(), 0.01);
    Recorder recorder(*net);
    for (int step = 0; step < 20; ++step) {
      const at::Tensor x = torch::randn({6, 4}, generator);
      if (attached) recorder.start();
      optimizer.zero_grad();
      net->forward(x).pow(2).sum().backward();
      optimizer.step();
      if (attached) {
        const Captured captured = recorder.take();
        EXPECT_EQ(captured.layers.size(), 2u);
        for (const CapturedLayer& layer : captured.layers) EXPECT_EQ(layer.calls.size(), 1u);
      }
    }
    return torch::nn::utils::parameters_to_vector(net->parameters()).detach();
  };
  std::vector<at::Tensor> bare(3), attached(3);
  const auto run_all = [&](std::vector<at::Tensor>& results, bool attach) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < results.size(); ++i) {
      threads.emplace_back([&, i] { results[i] = train(i, attach); });
    }
    for (std::thread& thread : threads) thread.join();
  };
  run_all(bare, false);
  run_all(attached, true);
  for (std::size_t i = 0; i < bare.size(); ++i) EXPECT_TRUE(torch::equal(bare[i], attached[i]));
}

TEST(Usage, ACloneIsAnotherModel) {
  torch::nn::Sequential net(torch::nn::Linear(4, 3));
  Recorder recorder(*net);
  const auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net->clone());
  recorder.start();
  copy->forward(torch::ones({2, 4})).sum().backward();
  const Captured captured = recorder.take();
  EXPECT_EQ(to_string(captured.layers.at(0).status), "not_run");
  EXPECT_THAT(captured.attribution,
              testing::Each(testing::Field(&Attribution::outcome, Attribution::Outcome::Unregistered)));
}

// ---- attribution ----

TEST(Attribution, SaysOfEveryOperatorWhatBecameOfIt) {
  struct Net : torch::nn::Module {
    torch::nn::Linear fc{register_module("fc", torch::nn::Linear(4, 4))};
    torch::nn::Linear left_out{register_module("left_out", torch::nn::Linear(4, 4))};
    at::Tensor scale = register_parameter("scale", torch::ones({4}));
    at::Tensor query = register_parameter("query", torch::ones({2, 5, 4}));
    at::Tensor low = register_parameter("low", torch::ones({4, 2}));
    at::Tensor stray = torch::ones({4, 3}, torch::requires_grad());
    at::Tensor forward(const at::Tensor& x) {
      {
        const torch::NoGradGuard no_grad;
        fc(x);
      }
      at::Tensor y = fc(x + scale) + fc(query).flatten(0, 1).sum(0) + left_out(x);
      return y.mm(low.mm(low.t())).mm(stray);
    }
  } net;
  const auto table = attribute(net,
                               [&] {
                                 net.forward(torch::ones({3, 4})).sum().backward();
                               },
                               {.select = [](const std::string& name) { return name != "left_out"; }});
  const auto has = [&](const std::string& layer, const std::string& op, Attribution::Outcome outcome,
                       const std::string& site, std::int64_t count) {
    for (const Attribution& use : table) {
      if (use.layer == layer && use.op == op && use.outcome == outcome && use.site == site) {
        EXPECT_EQ(use.count, count) << layer << ": " << use.statement();
        EXPECT_THAT(use.statement(), testing::StartsWith(op));
        EXPECT_NE(to_string(outcome), "unknown");
        return;
      }
    }
    ADD_FAILURE() << "nothing about " << op << " on " << layer << " " << to_string(outcome);
  };
  using Outcome = Attribution::Outcome;
  has("fc", "aten::addmm", Outcome::Captured, "fc", 1);
  has("fc", "aten::matmul", Outcome::Captured, "fc", 1);
  has("fc", "aten::add_", Outcome::Bias, "fc", 1);
  has("fc", "aten::t", Outcome::View, "", 2);
  has("fc", "aten::addmm", Outcome::NoGradMode, "", 1);
  has("query", "aten::matmul", Outcome::Input, "fc", 1);
  has("scale", "aten::add", Outcome::NotCaptured, "", 1);
  has("left_out", "aten::addmm", Outcome::NotSelected, "", 1);
  has("low", "aten::mm", Outcome::Weight, "", 1);
  has("low", "aten::mm", Outcome::Captured, "low", 1);
  has("leaf [4, 3]", "aten::mm", Outcome::Unregistered, "", 1);
}

TEST(Attribution, RawBiasesAreGivenToTheSiteThatTheyAreAddedTo) {
  torch::nn::MultiheadAttention attention(torch::nn::MultiheadAttentionOptions(4, 2));
  Recorder recorder(*attention);
  recorder.start();
  const at::Tensor x = torch::ones({3, 2, 4});
  std::get<0>(attention->forward(x, x, x)).sum().backward();
  const Captured captured = recorder.take();
  bool added = false;
  for (const Attribution& use : captured.attribution) {
    if (use.layer == "in_proj_bias") added = added || use.outcome == Attribution::Outcome::Bias;
    EXPECT_NE(use.outcome, Attribution::Outcome::NotCaptured) << use.layer << ": " << use.statement();
  }
  EXPECT_TRUE(added);
  const auto bias = std::find_if(captured.layers.begin(), captured.layers.end(),
                                 [](const CapturedLayer& layer) { return layer.layer == "in_proj_bias"; });
  ASSERT_NE(bias, captured.layers.end());
  EXPECT_THAT(bias->detail, testing::HasSubstr("as a bias of in_proj_weight"));
}

TEST(Attribution, AMonitorHasThatOfItsLastStep) {
  torch::nn::Sequential net(torch::nn::Linear(4, 3));
  Monitor monitor(*net, MonitorOptions().every(2).reduction(Reduction::Sum), std::make_shared<log::Memory>());
  EXPECT_TRUE(monitor.attribution().empty());
  for (int i = 0; i < 2; ++i) {
    const auto step = monitor.step();
    net->forward(torch::ones({5, 4})).sum().backward();
  }
  EXPECT_THAT(monitor.attribution(),
              testing::Contains(testing::Field(&Attribution::outcome, Attribution::Outcome::Captured)));
}

}  // namespace
}  // namespace dds
