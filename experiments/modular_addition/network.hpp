// The one-layer transformer of the grokking literature, as anyone would write it; two taps name points of its residual
// stream.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <dds/recorder.hpp>

namespace modular_addition {

/// Tokens (a, b, =) -> logits of (a + b) mod p, read at the last position. Learned positions, four heads, no
/// normalisation, no biases in attention and read-out, a ReLU MLP of four times the width. With one layer only the last
/// position is read, so that attention asks from there alone.
struct TransformerImpl : torch::nn::Cloneable<TransformerImpl> {
  static constexpr std::int64_t kHeads = 4, kPositions = 3;

  TransformerImpl(std::int64_t p, std::int64_t width) : p(p), width(width) { reset(); }

  void reset() override {
    const auto linear = [](std::int64_t in, std::int64_t out, bool bias) {
      return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
    };
    embed = register_module("embed", torch::nn::Embedding(p + 1, width));
    position = register_parameter("position", torch::zeros({kPositions, width}));
    query = register_module("query", linear(width, width, false));
    key = register_module("key", linear(width, width, false));
    value = register_module("value", linear(width, width, false));
    out = register_module("out", linear(width, width, false));
    up = register_module("up", linear(width, 4 * width, true));
    down = register_module("down", linear(4 * width, width, true));
    unembed = register_module("unembed", linear(width, p, false));
  }

  torch::Tensor forward(const torch::Tensor& tokens) {
    const std::int64_t n = tokens.size(0), head = width / kHeads;
    const torch::Tensor x = embed(tokens) + position;
    const torch::Tensor last = x.select(1, kPositions - 1);
    const auto heads = [&](const torch::Tensor& y, std::int64_t positions) {
      return y.view({n, positions, kHeads, head}).transpose(1, 2);  // n x heads x positions x head
    };
    const torch::Tensor scores = heads(query(last), 1).matmul(heads(key(x), kPositions).transpose(2, 3));
    const torch::Tensor pattern = torch::softmax(scores / std::sqrt(static_cast<double>(head)), -1);
    const torch::Tensor mixed = pattern.matmul(heads(value(x), kPositions)).reshape({n, width});
    const torch::Tensor mid = dds::tap("resid_mid", last + out(mixed));
    const torch::Tensor post = dds::tap("resid_post", mid + down(torch::relu(up(mid))));
    return unembed(post);
  }

  std::int64_t p, width;
  torch::nn::Embedding embed{nullptr};
  torch::Tensor position;
  torch::nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, out{nullptr}, up{nullptr}, down{nullptr},
      unembed{nullptr};
};
TORCH_MODULE(Transformer);

}  // namespace modular_addition
