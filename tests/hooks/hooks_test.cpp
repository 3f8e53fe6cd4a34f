#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/hooks.hpp>

#include "tests/hooks/hook_models.hpp"
#include "tests/hooks/layer_kinds.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::kTolerance;
using test::message_of;
using test::relative_difference;
using test::Residual;
using test::Spy;
using test::summed_loss;
using test::to_double;
using testing::ElementsAre;
using testing::HasSubstr;
using Module = torch::nn::Module;

// ---- layers that are recognised by their operators ----

std::vector<test::LayerKind> modules_of_libtorch() {
  std::vector<test::LayerKind> kinds = test::layer_kinds();
  std::erase_if(kinds, [](const test::LayerKind& kind) { return kind.kind == "Raw"; });
  return kinds;
}

class EveryHookedKind : public testing::TestWithParam<test::LayerKind> {};

// What an unmodified program's hooks are told, against autograd: the gradient at the output, and that at the input with
// another consumer beside the layer, whose part must not be in it.
TEST_P(EveryHookedKind, IsToldInputsOutputsAndItsOwnGradients) {
  torch::manual_seed(1);
  const auto net = test::make_net(GetParam());
  net->to(torch::kDouble);
  at::Tensor x = to_double(GetParam().input());
  if (x.is_floating_point()) x.requires_grad_();
  const Spy spy(*net);
  for (const HookHandle& handle : spy.handles) EXPECT_THAT(handle.not_observable(), ElementsAre());

  const at::Tensor output = net->forward(x);
  const at::Tensor loss = summed_loss(output);
  (x.is_floating_point() ? loss + x.pow(2).sum() : loss).backward();
  ASSERT_THAT(spy.order(), ElementsAre("before layer", "after layer", "backward layer"));
  for (const HookHandle& handle : spy.handles) EXPECT_THAT(handle.errors(), ElementsAre());
  EXPECT_TRUE(spy.events[1].second.at(0).is_same(net->seen));
  const Tensors inputs = spy.events[0].first, grad_inputs = spy.events[2].first, grad_outputs = spy.events[2].second;

  const at::Tensor again = net->forward(x);
  const at::Tensor delta = torch::autograd::grad({summed_loss(again)}, {net->seen})[0];
  EXPECT_LE(relative_difference(grad_outputs.at(0), delta), kTolerance);
  if (!x.is_floating_point()) return;
  if (GetParam().runs_again && GetParam().name != "Bilinear") {
    EXPECT_TRUE(inputs.at(0).is_same(x));
    const at::Tensor through = torch::autograd::grad({summed_loss(net->forward(x))}, {x})[0];
    EXPECT_LE(relative_difference(grad_inputs.at(0), through), kTolerance);
  }
}

TEST_P(EveryHookedKind, TrainsBitForBitTheSame) {
  const auto train = [&](bool attached) {
    torch::manual_seed(3);
    const auto net = test::make_net(GetParam());
    torch::optim::Adam optimizer(net->parameters(), 0.05);
    std::optional<Spy> spy;
    if (attached) spy.emplace(*net);
    for (int step = 0; step < 4; ++step) {
      const at::Tensor x = GetParam().input();
      optimizer.zero_grad();
      summed_loss(net->forward(x)).backward();
      optimizer.step();
    }
    if (attached) {
      EXPECT_EQ(spy->events.size(), 12u);
    }
    return torch::nn::utils::parameters_to_vector(net->parameters());
  };
  EXPECT_TRUE(torch::equal(train(false), train(true)));
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryHookedKind, testing::ValuesIn(modules_of_libtorch()),
                         [](const auto& info) { return info.param.name; });

// ---- a model with a container, a parameterless layer and a residual ----

TEST(Hooks, ContainersAndLayersWithoutParametersAreSeenThroughHooked) {
  torch::manual_seed(0);
  Residual net;
  const Spy spy(net);
  EXPECT_THAT(spy.handles[0].modules(), ElementsAre("block", "block.up", "block.act", "block.down", "head"));
  EXPECT_THAT(spy.handles[0].not_observable(), ElementsAre("block", "block.act"));
  const at::Tensor x = torch::randn({5, 4}, torch::kDouble).requires_grad_();
  summed_loss(net.forward(x)).backward();
  EXPECT_THAT(spy.order(), ElementsAre("before block", "before block.up", "after block.up", "before block.act",
                                       "after block.act", "before block.down", "after block.down", "after block",
                                       "before head", "after head", "backward head", "backward block.down",
                                       "backward block.act", "backward block.up", "backward block"));

  // The residual connection is no part of the block's gradient.
  const at::Tensor told = spy.events.back().first.at(0), delta = spy.events.back().second.at(0);
  const at::Tensor again = x.detach().requires_grad_();
  const at::Tensor through = torch::autograd::grad({net.block(again)}, {again}, {delta})[0];
  EXPECT_LE(relative_difference(told, through), kTolerance);
  EXPECT_LE(relative_difference(x.grad(), through + delta), kTolerance);

  net.through_hooked = false;
  const std::size_t before = spy.events.size();
  net.forward(x);
  for (std::size_t i = before; i < spy.events.size(); ++i) EXPECT_NE(spy.events[i].name, "block");
}

TEST(Hooks, ObservingContainersTrainsBitForBitTheSame) {
  const auto train = [](bool attached) {
    torch::manual_seed(3);
    Residual net;
    torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    std::optional<Spy> spy;
    if (attached) spy.emplace(net);
    for (int step = 0; step < 6; ++step) {
      optimizer.zero_grad();
      summed_loss(net.forward(torch::randn({5, 4}, torch::kDouble))).backward();
      optimizer.step();
    }
    return torch::nn::utils::parameters_to_vector(net.parameters());
  };
  EXPECT_TRUE(torch::equal(train(false), train(true)));
}

TEST(Hooks, CallsWithSeveralTensorsInAllKindsOfArguments) {
  struct Mixed : Module {
    std::tuple<at::Tensor, std::vector<at::Tensor>> forward(const at::Tensor& x, std::optional<at::Tensor> mask,
                                                            const std::vector<at::Tensor>& more, double scale = 2) {
      return {mask ? x * *mask : x, {more.at(0) * scale, more.at(1)}};
    }
  } mixed;
  const at::Tensor a = torch::ones({2}), b = torch::ones({3}), c = torch::ones({4});
  std::size_t inputs = 0, outputs = 0;
  const auto handle =
      register_forward_hook(mixed, [&](const Module&, const std::string&, const Tensors& in, const Tensors& out) {
        inputs = in.size();
        outputs = out.size();
      });
  hooked(mixed)(a, std::nullopt, std::vector<at::Tensor>{b, c}, 3.0);
  EXPECT_EQ(inputs, 3u);
  EXPECT_EQ(outputs, 3u);
  hooked(mixed)(a, std::optional(a), std::vector<at::Tensor>{b, c}, 3.0);
  EXPECT_EQ(inputs, 4u);
  const auto change = hooked(mixed).register_forward_pre_hook(
      [](Module&, const std::string&, const Tensors& in) -> std::optional<Tensors> {
        Tensors next;
        for (const at::Tensor& tensor : in) next.push_back(tensor * 10);
        return next;
      });
  const auto [first, rest] = hooked(mixed)(a, std::nullopt, std::vector<at::Tensor>{b, c}, 3.0);
  EXPECT_EQ(first[0].item<double>(), 10);
  EXPECT_EQ(rest[0][0].item<double>(), 30);
  EXPECT_EQ(a[0].item<double>(), 1);
}

TEST(Hooks, WorksOnSequentialAnyModuleAndAttention) {
  torch::manual_seed(0);
  torch::nn::Sequential sequence(torch::nn::Linear(4, 4), torch::nn::Tanh());
  torch::nn::AnyModule any(torch::nn::Linear(4, 4));
  torch::nn::MultiheadAttention attention(torch::nn::MultiheadAttentionOptions(4, 2));
  int calls = 0;
  const auto count = [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++calls; };
  const auto on_sequence = register_forward_hook(*sequence, count), on_any = register_forward_hook(*any.ptr(), count),
             on_attention = register_forward_hook(*attention, count);
  EXPECT_THAT(on_attention.not_observable(), ElementsAre(HasSubstr("MultiheadAttention")));
  EXPECT_THAT(on_any.not_observable(), ElementsAre());
  const at::Tensor x = torch::randn({3, 2, 4});
  EXPECT_TRUE(torch::equal(hooked(sequence)(x), sequence->forward(x)));
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(torch::equal(hooked(any)(x), any.forward(x)));  // the second as a plain call
  EXPECT_EQ(calls, 3);
  const auto [value, weights] = hooked(attention)(x, x, x);
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(value.sizes(), x.sizes());
}

// ---- changing hooks ----

// Each of them against the function that the program then computes.
TEST(ChangingHooks, ReplaceInputsOutputsAndGradients) {
  torch::manual_seed(0);
  Residual net;
  const at::Tensor x = torch::randn({5, 4}, torch::kDouble);
  const auto scaled = [](double factor) {
    return [factor](Module&, const std::string&, const Tensors& in) -> std::optional<Tensors> {
      return Tensors{in[0] * factor};
    };
  };
  {
    const auto first = hooked(net.block).register_forward_pre_hook(scaled(2));
    const auto second = hooked(net.block).register_forward_pre_hook(scaled(3));  // gets what the first made
    EXPECT_TRUE(torch::equal(net.forward(x), net.head(x + net.block(x * 2 * 3))));
    EXPECT_EQ(second.calls(), 1);
  }
  {
    const auto outputs = hooked(net.block).register_forward_hook(
        [](Module&, const std::string&, const Tensors&, const Tensors& out) -> std::optional<Tensors> {
          return Tensors{out[0].tanh()};
        });
    EXPECT_TRUE(torch::equal(net.forward(x), net.head(x + net.block(x).tanh())));
  }
  {
    const auto gradients = hooked(net.block).register_full_backward_hook(
        [](Module&, const std::string&, const Tensors& in, const Tensors&) -> std::optional<Tensors> {
          return Tensors{in[0] * 5};
        });
    Tensors told;
    const auto observer = register_full_backward_hook(
        *net.block, [&](const Module&, const std::string&, const Tensors& in, const Tensors&) { told = in; });
    at::Tensor leaf = x.clone().requires_grad_();
    summed_loss(net.forward(leaf)).backward();
    const at::Tensor plain = x.clone().requires_grad_();
    const at::Tensor inside = net.block(plain), sum = plain.detach() + inside;
    const at::Tensor at_inside = torch::autograd::grad({summed_loss(net.head(sum))}, {inside}, {}, true)[0];
    const at::Tensor through = torch::autograd::grad({inside}, {plain}, {at_inside})[0];
    EXPECT_LE(relative_difference(leaf.grad(), at_inside + 5 * through), kTolerance);
    ASSERT_EQ(told.size(), 1u);  // in the order of registration: what the changing hook made
    EXPECT_LE(relative_difference(told[0], 5 * through), kTolerance);
  }
  EXPECT_TRUE(torch::equal(net.forward(x), net.head(x + net.block(x))));
}

TEST(ChangingHooks, ThrowThroughTheCallAndThroughBackward) {
  Residual net;
  const at::Tensor x = torch::randn({5, 4}, torch::kDouble).requires_grad_();
  {
    const auto handle = hooked(net.block).register_forward_pre_hook(
        [](Module&, const std::string&, const Tensors&) -> std::optional<Tensors> {
          throw std::runtime_error("planted");
        });
    EXPECT_THROW(net.forward(x), std::runtime_error);
  }
  {
    const auto handle =
        hooked(net.block).register_forward_hook([](Module&, const std::string&, const Tensors&,
                                                   const Tensors&) -> std::optional<Tensors> { return Tensors{}; });
    EXPECT_THAT(message_of([&] { net.forward(x); }), testing::AllOf(HasSubstr("0 tensors"), HasSubstr("expected 1")));
  }
  {
    const auto handle = hooked(net.block).register_full_backward_hook(
        [](Module&, const std::string&, const Tensors&, const Tensors&) -> std::optional<Tensors> {
          throw std::runtime_error("planted");
        });
    const at::Tensor loss = net.forward(x).sum();
    EXPECT_THROW(loss.backward(), std::runtime_error);
  }
  net.forward(x).sum().backward();  // nothing is left
}

TEST(ChangingHooks, DoNotActOnPlainCalls) {
  Residual net;
  const at::Tensor x = torch::randn({5, 4}, torch::kDouble);
  const auto handle = hooked(net.head).register_forward_hook(
      [](Module&, const std::string&, const Tensors&, const Tensors&) -> std::optional<Tensors> {
        return Tensors{torch::zeros({1})};
      });
  EXPECT_EQ(net.forward(x).size(1), 3);
  EXPECT_EQ(handle.calls(), 0);
  EXPECT_EQ(hooked(net.head)(x).size(0), 1);
  EXPECT_EQ(handle.calls(), 1);
}

}  // namespace
}  // namespace dds
