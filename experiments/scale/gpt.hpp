// A transformer of GPT-2's shape: pre-norm blocks, one projection for queries, keys and values, a head without bias.
#pragma once

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace scale {

struct Shape {
  std::int64_t blocks, width, heads, vocabulary, context;
};

struct BlockImpl : torch::nn::Module {
  explicit BlockImpl(const Shape& shape)
      : heads(shape.heads),
        before(register_module("ln_1", torch::nn::LayerNorm(std::vector<std::int64_t>{shape.width}))),
        qkv(register_module("qkv", torch::nn::Linear(shape.width, 3 * shape.width))),
        projection(register_module("proj", torch::nn::Linear(shape.width, shape.width))),
        between(register_module("ln_2", torch::nn::LayerNorm(std::vector<std::int64_t>{shape.width}))),
        wide(register_module("fc", torch::nn::Linear(shape.width, 4 * shape.width))),
        narrow(register_module("out", torch::nn::Linear(4 * shape.width, shape.width))) {}

  /// (batch, time, width), and what is added to the scores of attention: (time, time).
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& mask) {
    const std::int64_t batch = x.size(0), time = x.size(1), width = x.size(2);
    const auto parts = qkv(before(x)).view({batch, time, 3, heads, width / heads}).permute({2, 0, 3, 1, 4}).unbind(0);
    const torch::Tensor scores = torch::matmul(parts[0], parts[1].transpose(-1, -2))
                                     .div(std::sqrt(static_cast<double>(width) / static_cast<double>(heads)));
    const torch::Tensor mixed = torch::matmul((scores + mask).softmax(-1), parts[2]);
    const torch::Tensor middle = x + projection(mixed.transpose(1, 2).reshape({batch, time, width}));
    return middle + narrow(torch::gelu(wide(between(middle))));
  }

  std::int64_t heads;
  torch::nn::LayerNorm before;
  torch::nn::Linear qkv, projection;
  torch::nn::LayerNorm between;
  torch::nn::Linear wide, narrow;
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
  explicit GptImpl(const Shape& shape)
      : tokens(register_module("wte", torch::nn::Embedding(shape.vocabulary, shape.width))),
        positions(register_module("wpe", torch::nn::Embedding(shape.context, shape.width))),
        last(register_module("ln_f", torch::nn::LayerNorm(std::vector<std::int64_t>{shape.width}))),
        head(register_module("head",
                             torch::nn::Linear(torch::nn::LinearOptions(shape.width, shape.vocabulary).bias(false)))) {
    for (std::int64_t i = 0; i < shape.blocks; ++i) {
      blocks.push_back(register_module(fmt::format("h{}", i), Block(shape)));
    }
  }

  /// Ids (batch, time) to logits (batch, time, vocabulary).
  torch::Tensor forward(const torch::Tensor& ids) {
    const std::int64_t time = ids.size(1);
    const torch::Tensor mask = torch::full({time, time}, -1e9).triu(1);
    torch::Tensor x = tokens(ids) + positions(torch::arange(time));
    for (Block& block : blocks) x = block(x, mask);
    return head(last(x));
  }

  torch::nn::Embedding tokens, positions;
  std::vector<Block> blocks;
  torch::nn::LayerNorm last;
  torch::nn::Linear head;
};
TORCH_MODULE(Gpt);

}  // namespace scale
