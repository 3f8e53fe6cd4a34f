#include "experiments/causes/healthy.hpp"

namespace dds::experiments {
namespace {

namespace nn = torch::nn;
using Counts = std::map<std::pair<std::string, Side>, std::int64_t>;

/// Counts of layers: outputs first, gradients second.
Counts counts(const std::vector<std::tuple<std::string, std::int64_t, std::int64_t>>& layers) {
  Counts all;
  for (const auto& [name, outputs, gradients] : layers) {
    all[{name, Side::Activation}] = outputs;
    all[{name, Side::Fisher}] = gradients;
  }
  return all;
}

Healthy sequential(std::string name, nn::Sequential net, at::Tensor probe, Counts left_out) {
  Forward forward = [net](nn::Module&, const std::vector<at::Tensor>& inputs) mutable {
    return net->forward(inputs.at(0));
  };
  return {std::move(name), net.ptr(), std::move(forward), std::move(probe), std::move(left_out)};
}

template <class Module>
Healthy own(std::string name, std::shared_ptr<Module> net, at::Tensor probe, Counts left_out) {
  Forward forward = [net](nn::Module&, const std::vector<at::Tensor>& inputs) { return net->forward(inputs.at(0)); };
  return {std::move(name), net, std::move(forward), std::move(probe), std::move(left_out)};
}

/// 12 inputs and a bias make 13 of the 24 outputs of the first layer; the gradients of 5 logits sum to zero.
template <class Function>
Healthy perceptron(const std::string& name, const Function& function) {
  nn::Sequential net({{"fc0", nn::Linear(12, 24)},
                      {"f0", function()},
                      {"fc1", nn::Linear(24, 24)},
                      {"f1", function()},
                      {"fc2", nn::Linear(24, 5)}});
  return sequential(name, net, torch::randn({300, 12}), counts({{"fc0", 11, 0}, {"fc1", 0, 0}, {"fc2", 0, 1}}));
}

/// 6 channels and a bias make 7 of 9 logits.
Healthy convolutions() {
  nn::Sequential net({{"conv", nn::Conv2d(nn::Conv2dOptions(2, 6, 3))},
                      {"bn", nn::BatchNorm2d(6)},
                      {"relu", nn::ReLU()},
                      {"pool", nn::AdaptiveAvgPool2d(1)},
                      {"flat", nn::Flatten()},
                      {"fc", nn::Linear(6, 9)}});
  return sequential("cnn with batch norm", net, torch::randn({200, 2, 7, 7}),
                    counts({{"conv", 0, 0}, {"bn", 0, 0}, {"fc", 2, 1}}));
}

/// 10 inputs and a bias make 11 of 16 outputs. The norm keeps as many, across the ones; the gradients at its output are
/// those of 7 logits, which sum to zero. Its own way back adds what its outputs span: all but the ones.
Healthy norm() {
  nn::Sequential net(
      {{"in", nn::Linear(10, 16)}, {"norm", nn::LayerNorm(nn::LayerNormOptions({16}))}, {"out", nn::Linear(16, 7)}});
  return sequential("layer norm", net, torch::randn({300, 10}), counts({{"in", 5, 1}, {"norm", 5, 10}, {"out", 0, 1}}));
}

struct RootMeanSquare : nn::Module {
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = in(x);
    return out(h * (h.square().mean(-1, true) + 1e-5).rsqrt());
  }
  nn::Linear in{register_module("in", nn::Linear(24, 16))}, out{register_module("out", nn::Linear(16, 7))};
};

/// A block of attention and a perceptron over positions, with a norm before or behind each.
struct Block : nn::Module {
  Block(std::int64_t width, bool norm_first) : norm_first(norm_first) {
    qkv = register_module("qkv", nn::Linear(width, 3 * width));
    out = register_module("out", nn::Linear(width, width));
    up = register_module("up", nn::Linear(width, 2 * width));
    down = register_module("down", nn::Linear(2 * width, width));
    norm1 = register_module("norm1", nn::LayerNorm(nn::LayerNormOptions({width})));
    norm2 = register_module("norm2", nn::LayerNorm(nn::LayerNormOptions({width})));
  }
  at::Tensor attend(const at::Tensor& x) {
    const auto parts = qkv(x).chunk(3, -1);
    const double scale = 1 / std::sqrt(static_cast<double>(x.size(-1)));
    const at::Tensor scores = torch::matmul(parts[0], parts[1].transpose(1, 2)) * scale;
    return out(torch::matmul(torch::softmax(scores, -1), parts[2]));
  }
  at::Tensor forward(at::Tensor x) {
    if (norm_first) {
      x = x + attend(norm1(x));
      return x + down(torch::gelu(up(norm2(x))));
    }
    x = norm1(x + attend(x));
    return norm2(x + down(torch::gelu(up(x))));
  }
  bool norm_first;
  nn::Linear qkv{nullptr}, out{nullptr}, up{nullptr}, down{nullptr};
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};
};

/// Of width 16, over 20 tokens. A norm's outputs have 15 dimensions, and a layer behind it has one more by its bias.
/// All that writes into what a norm reads has gradients across the ones. Of queries, keys and values (48): values are
/// mixed into such an output, and have 15 dimensions; gradients of a query are differences of keys, 15 behind a norm
/// and 16 else; those of keys have 16.
struct Transformer : nn::Module {
  Transformer(bool norm_first, bool pooled, bool tied) : pooled(pooled), tied(tied) {
    tokens = register_module("tokens", nn::Embedding(kTokens, kWidth));
    block = register_module("block", std::make_shared<Block>(kWidth, norm_first));
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({kWidth})));
    if (!tied) head = register_module("head", nn::Linear(nn::LinearOptions(kWidth, pooled ? 5 : kTokens).bias(false)));
  }
  at::Tensor forward(const at::Tensor& indices) {
    const at::Tensor x = norm(block->forward(tokens(indices)));
    const at::Tensor read = pooled ? x.mean(1) : x.select(1, -1);
    return tied ? torch::matmul(read, tokens->weight.t()) : head(read);
  }
  static constexpr std::int64_t kTokens = 20, kWidth = 16;
  bool pooled, tied;
  nn::Embedding tokens{nullptr};
  std::shared_ptr<Block> block;
  nn::LayerNorm norm{nullptr};
  nn::Linear head{nullptr};
};

struct Residual : nn::Module {
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = torch::relu(norm0(stem(x)));
    return fc((h + norm1(conv(h))).relu().mean({2, 3}));
  }
  nn::Conv2d stem{register_module("stem", nn::Conv2d(nn::Conv2dOptions(2, 8, 3).padding(1)))},
      conv{register_module("conv", nn::Conv2d(nn::Conv2dOptions(8, 8, 3).padding(1)))};
  nn::BatchNorm2d norm0{register_module("norm0", nn::BatchNorm2d(8))},
      norm1{register_module("norm1", nn::BatchNorm2d(8))};
  nn::Linear fc{register_module("fc", nn::Linear(8, 5))};
};

struct Lstm : nn::Module {
  at::Tensor forward(const at::Tensor& x) { return fc(std::get<0>(cell(x)).select(1, -1)); }
  nn::LSTM cell{register_module("cell", nn::LSTM(nn::LSTMOptions(6, 10).batch_first(true)))};
  nn::Linear fc{register_module("fc", nn::Linear(10, 5))};
};

struct Gru : nn::Module {
  at::Tensor forward(const at::Tensor& x) { return fc(std::get<0>(cell(x)).select(1, -1)); }
  nn::GRU cell{register_module("cell", nn::GRU(nn::GRUOptions(6, 10).batch_first(true)))};
  nn::Linear fc{register_module("fc", nn::Linear(10, 5))};
};

}  // namespace

std::vector<Healthy> healthy_networks() {
  const auto tokens = [] { return torch::randint(Transformer::kTokens, {300, 6}); };
  std::vector<Healthy> all;
  all.push_back(perceptron("relu perceptron", [] { return nn::ReLU(); }));
  all.push_back(perceptron("gelu perceptron", [] { return nn::GELU(); }));
  all.push_back(perceptron("tanh perceptron", [] { return nn::Tanh(); }));
  all.push_back(convolutions());
  all.push_back(norm());
  all.push_back(own("rms norm", std::make_shared<RootMeanSquare>(), torch::randn({300, 24}),
                    counts({{"in", 0, 0}, {"out", 0, 1}})));
  all.push_back(own("residual cnn", std::make_shared<Residual>(), torch::randn({200, 2, 7, 7}),
                    counts({{"stem", 0, 0}, {"norm0", 0, 0}, {"conv", 0, 0}, {"norm1", 0, 0}, {"fc", 0, 1}})));
  // The read-out has no bias: 15 of 20 logits.
  const auto pre_norm = [](const std::string& head) {
    return counts({{"tokens", 0, 1},
                   {"block.norm1", 1, 0},
                   {"block.qkv", 32, 2},
                   {"block.out", 0, 1},
                   {"block.norm2", 1, 0},
                   {"block.up", 16, 0},
                   {"block.down", 0, 1},
                   {"norm", 1, 0},
                   {head, 5, 1}});
  };
  all.push_back(
      own("pre-norm transformer", std::make_shared<Transformer>(true, false, false), tokens(), pre_norm("head")));
  // All positions have the gradient of their mean, that of 5 logits.
  all.push_back(own("post-norm encoder, pooled", std::make_shared<Transformer>(false, true, false), tokens(),
                    counts({{"tokens", 0, 0},
                            {"block.qkv", 31, 1},
                            {"block.out", 0, 1},
                            {"block.norm1", 1, 0},
                            {"block.up", 16, 0},
                            {"block.down", 0, 1},
                            {"block.norm2", 1, 1},
                            {"norm", 1, 12},
                            {"head", 0, 1}})));
  all.push_back(
      own("tied embedding", std::make_shared<Transformer>(true, false, true), tokens(), pre_norm("tokens#2")));
  // Gradients come in at the last position alone: those of 5 logits.
  const Counts recurrent = counts({{"cell", 0, 6}, {"fc", 0, 1}});
  all.push_back(own("lstm", std::make_shared<Lstm>(), torch::randn({300, 7, 6}), recurrent));
  all.push_back(own("gru", std::make_shared<Gru>(), torch::randn({300, 7, 6}), recurrent));
  return all;
}

}  // namespace dds::experiments
