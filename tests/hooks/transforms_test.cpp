// torch.func beside a training, and what its tensors must not do to a recording.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <dds/recorder.hpp>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>

namespace dds {
namespace {

namespace F = torch::nn::functional;

/// The scope of a vmap over `samples`.
struct Vmap {
  explicit Vmap(std::int64_t samples)
      : level(at::functorch::initAndPushDynamicLayer(at::functorch::TransformType::Vmap, samples,
                                                     at::functorch::RandomnessType::Error)) {}
  ~Vmap() { at::functorch::popDynamicLayerAndDeleteMetadata(); }
  Vmap(const Vmap&) = delete;
  Vmap& operator=(const Vmap&) = delete;
  at::Tensor each_of(const at::Tensor& tensor) const { return at::functorch::makeBatched(tensor, 0, level); }
  const std::int64_t level;
};

struct Transforms : testing::Test {
  Transforms() {
    torch::manual_seed(1);
    net = torch::nn::Sequential(torch::nn::Linear(4, 5), torch::nn::Tanh(), torch::nn::Linear(5, 3));
    x = torch::randn({6, 4});
    y = torch::randint(0, 3, {6}, torch::kLong);
  }
  at::Tensor loss() { return F::cross_entropy(net->forward(x), y); }
  Captured step(const std::function<void()>& work) {
    Recorder recorder(*net);
    recorder.start();
    work();
    return recorder.take();
  }
  torch::nn::Sequential net;
  at::Tensor x, y;
};

TEST_F(Transforms, WhatRunsInOneIsNoPartOfTheStep) {
  const Captured alone = step([&] { loss().backward(); });
  const Captured beside = step([&] {
    const at::Tensor mapped = [&] {
      const Vmap vmap(6);
      const at::Tensor out = net->forward(vmap.each_of(x).unsqueeze(0));
      tap("within", out);
      return F::cross_entropy(out, vmap.each_of(y).unsqueeze(0));
    }();
    loss().backward();
  });
  EXPECT_THAT(beside.errors, testing::IsEmpty());
  EXPECT_EQ(beside.losses.size(), 1u);
  ASSERT_EQ(beside.layers.size(), alone.layers.size());
  for (std::size_t i = 0; i < alone.layers.size(); ++i) {
    ASSERT_EQ(beside.layers[i].calls.size(), 1u) << beside.layers[i].layer;
    EXPECT_TRUE(torch::equal(beside.layers[i].calls[0].gradient(), alone.layers[i].calls[0].gradient()));
  }
  ASSERT_EQ(beside.attribution.size(), alone.attribution.size());
  for (std::size_t i = 0; i < alone.attribution.size(); ++i) {
    EXPECT_EQ(beside.attribution[i].statement(), alone.attribution[i].statement());
  }
}

TEST_F(Transforms, AVectorisedBackwardPassAddsNothing) {
  const Captured alone = step([&] { loss().backward(); });
  const at::Tensor directions = torch::randn({2, 6, 3});
  const Captured beside = step([&] {
    const at::Tensor out = net->forward(x);
    {
      const Vmap vmap(2);
      torch::autograd::grad({out}, {net->parameters()[0]}, {vmap.each_of(directions)},
                            /*retain_graph=*/true);
    }
    F::cross_entropy(out, y).backward();
  });
  ASSERT_EQ(beside.layers.size(), alone.layers.size());
  for (std::size_t i = 0; i < alone.layers.size(); ++i) {
    EXPECT_EQ(beside.layers[i].calls.at(0).backwards(), 1);
    EXPECT_TRUE(torch::equal(beside.layers[i].calls[0].gradient(), alone.layers[i].calls[0].gradient()));
  }
}

}  // namespace
}  // namespace dds
#endif
