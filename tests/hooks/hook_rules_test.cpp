#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/hooks.hpp>
#include <dds/recorder.hpp>
#include <dds/suspend_recording.hpp>
#include <thread>

#include "tests/hooks/hook_models.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::kTolerance;
using test::message_of;
using test::relative_difference;
using test::Residual;
using test::Spy;
using testing::ElementsAre;
using testing::HasSubstr;
using Module = torch::nn::Module;

TEST(HookRules, AreCalledInOrderOfRegistrationAndNotAfterRemoval) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  std::vector<int> order;
  const auto note = [&](int number) {
    return register_forward_hook(*net.head, [&, number](const Module&, const std::string&, const Tensors&,
                                                        const Tensors&) { order.push_back(number); });
  };
  const auto first = note(1);
  auto second = note(2);
  const auto third = note(3);
  net.forward(x);
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
  second.remove();
  second.remove();  // harmless
  order.clear();
  net.forward(x);
  EXPECT_THAT(order, ElementsAre(1, 3));
}

TEST(HookRules, ARemovedBackwardHookIsNotCalledByGraphsMadeBefore) {
  Residual net;
  auto handle = register_full_backward_hook(
      *net.head, [](const Module&, const std::string&, const Tensors&, const Tensors&) { FAIL(); });
  const at::Tensor loss = net.forward(torch::randn({2, 4}, torch::kDouble)).sum();
  handle.remove();
  loss.backward();
  EXPECT_EQ(handle.calls(), 0);
}

TEST(HookRules, HooksMayRegisterAndRemoveWhileTheirModuleRuns) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  for (auto* module : {static_cast<Module*>(net.block.get()), static_cast<Module*>(net.head.get())}) {
    int after = 0;
    HookHandle once, later;
    once = register_forward_pre_hook(*module, [&](const Module&, const std::string&, const Tensors&) {
      once.remove();
      later = register_forward_hook(
          *module, [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++after; });
    });
    net.forward(x);
    EXPECT_EQ(once.calls(), 1);
    EXPECT_EQ(after, 1);  // of the same call
    net.forward(x);
    EXPECT_EQ(once.calls(), 1);
    EXPECT_EQ(after, 2);
  }
}

TEST(HookRules, WithoutGradModeThereIsNoBackwardAndTheHooksHaveTheModeOfTheCall) {
  Residual net;
  std::vector<bool> modes;
  const auto handle =
      register_forward_hook(net, "*", [&](const Module&, const std::string&, const Tensors&, const Tensors&) {
        modes.push_back(torch::GradMode::is_enabled());
      });
  const auto backward =
      register_full_backward_hook(net, "*", [](const Module&, const std::string&, const Tensors&, const Tensors&) {});
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  {
    const torch::NoGradGuard no_grad;
    net.forward(x);
  }
  EXPECT_EQ(modes, std::vector<bool>(5, false));
  modes.clear();
  net.forward(x).sum().backward();
  EXPECT_EQ(modes, std::vector<bool>(5, true));
  EXPECT_EQ(backward.calls(), 5);
}

TEST(HookRules, AnObservingHookMayAddAPenaltyToTheLoss) {
  torch::manual_seed(0);
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  at::Tensor kept;
  const auto handle = register_forward_hook(*net.block->up, [&](const Module&, const std::string&, const Tensors&,
                                                                const Tensors& out) { kept = out[0].abs().sum(); });
  (net.forward(x).sum() + kept).backward();
  const at::Tensor attached = net.block->up->weight.grad().clone();
  net.zero_grad();
  const at::Tensor output = net.forward(x);
  (output.sum() + net.block->up(x).abs().sum()).backward();
  EXPECT_LE(relative_difference(attached, net.block->up->weight.grad()), kTolerance);
}

TEST(HookRules, OnceInEachBackwardPassThatReachesTheModule) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble).requires_grad_();
  const auto handle =
      register_full_backward_hook(net, "*", [](const Module&, const std::string&, const Tensors&, const Tensors&) {});
  const at::Tensor loss = net.forward(x).sum();
  loss.backward({}, /*keep_graph=*/true);
  EXPECT_EQ(handle.calls(), 5);
  loss.backward();
  EXPECT_EQ(handle.calls(), 10);
  net.forward(x);  // none: no backward pass
  EXPECT_EQ(handle.calls(), 10);
  // A pass that does not go on to the inputs of `block` still reaches it.
  const at::Tensor output = net.forward(x);
  torch::autograd::grad({output.sum()}, {net.block->up->weight});
  EXPECT_EQ(handle.calls(), 15);
  torch::autograd::grad({net.forward(x).sum()}, {net.head->weight});
  EXPECT_EQ(handle.calls(), 16);
}

TEST(HookRules, APassThatAnExceptionLeavesIsForgotten) {
  torch::nn::Linear linear(4, 3);
  Tensors delta;
  const auto handle = register_full_backward_hook(
      *linear, [&](const Module&, const std::string&, const Tensors&, const Tensors& out) { delta = out; });
  const at::Tensor output = linear(torch::ones({2, 4}));
  bool planted = true;
  output.register_hook([&](const at::TensorBase&) {
    if (std::exchange(planted, false)) throw std::runtime_error("planted");
  });
  EXPECT_THROW(output.sum().backward({}, /*keep_graph=*/true), std::exception);
  EXPECT_EQ(handle.calls(), 0);
  output.sum().backward();
  EXPECT_EQ(handle.calls(), 1);
  EXPECT_TRUE(torch::equal(delta.at(0), torch::ones({2, 3})));
}

TEST(HookRules, ADoubleBackwardComesThroughAgain) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble).requires_grad_();
  std::vector<at::Tensor> grads;
  const auto handle = register_full_backward_hook(*net.head, [&](const Module&, const std::string&, const Tensors& in,
                                                                 const Tensors&) { grads.push_back(in.at(0)); });
  const at::Tensor loss = net.forward(x).pow(2).sum();
  const at::Tensor gradient = torch::autograd::grad({loss}, {x}, {}, true, /*create_graph=*/true)[0];
  ASSERT_EQ(grads.size(), 1u);
  EXPECT_TRUE(grads[0].requires_grad());  // as Python gives it: it can be differentiated again
  gradient.pow(2).sum().backward();
  EXPECT_EQ(grads.size(), 2u);
}

TEST(HookRules, ALinearLayerOverPositionsIsOneCallWithItsBias) {
  torch::manual_seed(0);
  torch::nn::Linear linear(4, 3);
  at::Tensor seen;
  const auto handle = register_forward_hook(
      *linear, [&](const Module&, const std::string&, const Tensors&, const Tensors& out) { seen = out.at(0); });
  const at::Tensor x = torch::randn({2, 5, 4});
  const at::Tensor output = linear(x);
  EXPECT_EQ(handle.calls(), 1);
  EXPECT_TRUE(seen.is_same(output));
  // Its weight in a product alone: the next operator shows that no bias follows.
  const at::Tensor product = torch::matmul(x, linear->weight.t());
  EXPECT_EQ(handle.calls(), 1);
  product.relu();
  EXPECT_EQ(handle.calls(), 2);
  EXPECT_TRUE(seen.is_same(product));
}

TEST(HookRules, TiedLayersAreToldApartByTheirKindThoughAMemberWasReplaced) {
  struct Tied : Module {
    torch::nn::Embedding embedding{register_module("embedding", torch::nn::Embedding(7, 4))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 7).bias(false)))};
    Tied() { head->weight = embedding->weight; }
    at::Tensor forward(const at::Tensor& x) { return head(embedding(x)); }
  } net;
  const Spy spy(net);
  net.forward(torch::randint(0, 7, {5}, torch::kLong)).sum().backward();
  EXPECT_THAT(spy.order(), ElementsAre("before embedding", "after embedding", "before head", "after head",
                                       "backward head", "backward embedding"));
}

TEST(HookRules, OfLayersOfOneKindThatShareAWeightTheFirstThatWasHookedIsTold) {
  std::vector<torch::nn::Linear> layers;
  for (int i = 0; i < 8; ++i) {
    layers.emplace_back(torch::nn::LinearOptions(4, 4).bias(false));
    layers.back()->weight.set_data(layers.front()->weight.data());
  }
  std::vector<HookHandle> handles;
  for (int i = 7; i >= 0; --i) {
    handles.push_back(
        register_forward_hook(*layers[i], [](const Module&, const std::string&, const Tensors&, const Tensors&) {}));
  }
  layers[0](torch::ones({2, 4}));
  EXPECT_EQ(handles[0].calls(), 1);
  EXPECT_EQ(handles[7].calls(), 0);
}

TEST(HookRules, ParametersThatMoveAreFollowed) {
  Residual net;
  const auto handle =
      register_forward_hook(*net.head, [](const Module&, const std::string&, const Tensors&, const Tensors&) {});
  net.to(torch::kFloat);
  net.forward(torch::randn({2, 4}));
  EXPECT_EQ(handle.calls(), 1);
}

TEST(HookRules, WhatAnObservingHookThrowsIsKept) {
  Residual net;
  const auto forward = register_forward_hook(
      net, "head",
      [](const Module&, const std::string&, const Tensors&, const Tensors&) { throw std::runtime_error("planted"); });
  const auto backward = register_full_backward_hook(
      net, "block", [](const Module&, const std::string&, const Tensors&, const Tensors&) { throw 7; });
  EXPECT_NO_THROW(net.forward(torch::randn({2, 4}, torch::kDouble)).sum().backward());
  EXPECT_THAT(forward.errors(), ElementsAre("head: planted"));
  EXPECT_THAT(backward.errors(), ElementsAre(HasSubstr("block: ")));
}

TEST(HookRules, RecordersAndHooksSeeTheProgramNotEachOther) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  const auto handle =
      register_forward_hook(net, "*", [&](const Module&, const std::string&, const Tensors& in, const Tensors&) {
        net.head(torch::zeros({2, 4}, torch::kDouble));
      });
  Recorder recorder(net);
  recorder.start();
  net.forward(x).sum().backward();
  const Captured captured = recorder.take();
  EXPECT_EQ(handle.calls(), 5);
  ASSERT_EQ(captured.layers.size(), 3u);
  for (const CapturedLayer& layer : captured.layers) EXPECT_EQ(layer.calls.size(), 1u);
}

TEST(HookRules, SuspendedAnObservingHookIsSilentAndAChangingOneActs) {
  Residual net;
  const at::Tensor x = torch::randn({2, 4}, torch::kDouble);
  const auto observer =
      register_forward_hook(net, "*", [](const Module&, const std::string&, const Tensors&, const Tensors&) {});
  const auto change = hooked(net.block).register_forward_hook(
      [](Module&, const std::string&, const Tensors&, const Tensors& out) -> std::optional<Tensors> {
        return Tensors{torch::zeros_like(out[0])};
      });
  const SuspendRecording suspended;
  EXPECT_TRUE(torch::equal(net.forward(x), net.head(x)));
  EXPECT_EQ(observer.calls(), 0);
  EXPECT_EQ(change.calls(), 1);
}

TEST(HookRules, EveryThreadThatCallsIsHeard) {
  Residual net;
  std::atomic<int> calls = 0;
  const auto forward = register_forward_hook(
      net, "head", [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++calls; });
  const auto backward = register_full_backward_hook(
      net, "block", [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++calls; });
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10; ++j) {
        torch::autograd::grad({net.forward(torch::randn({2, 4}, torch::kDouble)).sum()}, {net.block->up->weight});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(calls, 60);
}

TEST(HookRules, BadRegistrationsSayWhatWasExpected) {
  Residual net;
  const auto nothing = [](const Module&, const std::string&, const Tensors&) {};
  EXPECT_THAT(message_of([&] { (void)register_forward_pre_hook(net, "tail*", nothing); }),
              testing::AllOf(HasSubstr("'tail*'"), HasSubstr("block.up")));
  EXPECT_THAT(message_of([&] { (void)hooked(net).register_forward_pre_hook(ForwardPreChange()); }), HasSubstr("empty"));
  static_assert(!std::is_constructible_v<ForwardHook, ForwardChange>, "an observing hook cannot return a replacement");
}

}  // namespace
}  // namespace dds
