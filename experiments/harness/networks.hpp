// The small networks of the experiments on singular minima, as anyone would write them, and their weights. Nothing in
// the networks knows of the library. All randomness comes from the generator that is handed in, so that trainings can
// run side by side.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace dds::experiments {

/// x -> W_L ... W_1 x.
struct DeepLinearImpl : torch::nn::Module {
  /// Widths H_0 .. H_L: W_l is H_l x H_(l-1).
  explicit DeepLinearImpl(const std::vector<std::int64_t>& widths) {
    for (std::size_t l = 1; l < widths.size(); ++l)
      layers->push_back(torch::nn::Linear(torch::nn::LinearOptions(widths[l - 1], widths[l]).bias(false)));
    register_module("layers", layers);
  }
  /// Every layer width x width.
  DeepLinearImpl(std::int64_t depth, std::int64_t width)
      : DeepLinearImpl(std::vector<std::int64_t>(static_cast<std::size_t>(depth) + 1, width)) {}
  torch::Tensor forward(torch::Tensor x) { return layers->forward(x); }

  torch::nn::Sequential layers;
};
TORCH_MODULE(DeepLinear);

enum class Activation { Relu, Tanh };

/// inputs -> hidden -> hidden -> outputs with an elementwise non-linearity.
struct PerceptronImpl : torch::nn::Module {
  PerceptronImpl(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, Activation activation)
      : activation(activation),
        fc1(register_module("fc1", torch::nn::Linear(inputs, hidden))),
        fc2(register_module("fc2", torch::nn::Linear(hidden, hidden))),
        fc3(register_module("fc3", torch::nn::Linear(hidden, outputs))) {}
  torch::Tensor act(const torch::Tensor& x) const {
    return activation == Activation::Relu ? torch::relu(x) : torch::tanh(x);
  }
  torch::Tensor forward(torch::Tensor x) { return fc3(act(fc2(act(fc1(x))))); }

  Activation activation;
  torch::nn::Linear fc1, fc2, fc3;
};
TORCH_MODULE(Perceptron);

/// One transformer block of one head over sequences (n, T, width), read out at the last position: attention and a ReLU
/// MLP, each with a residual connection.
struct TransformerImpl : torch::nn::Module {
  TransformerImpl(std::int64_t width, std::int64_t head, std::int64_t mlp, std::int64_t outputs)
      : query(register_module("query", torch::nn::Linear(width, head))),
        key(register_module("key", torch::nn::Linear(width, head))),
        value(register_module("value", torch::nn::Linear(width, head))),
        out(register_module("out", torch::nn::Linear(head, width))),
        up(register_module("up", torch::nn::Linear(width, mlp))),
        down(register_module("down", torch::nn::Linear(mlp, width))),
        readout(register_module("readout", torch::nn::Linear(width, outputs))) {}
  torch::Tensor forward(torch::Tensor x) {
    const double scale = 1 / std::sqrt(static_cast<double>(query->options.out_features()));
    const torch::Tensor attention = torch::softmax(torch::matmul(query(x), key(x).transpose(1, 2)) * scale, 2);
    x = x + out(torch::matmul(attention, value(x)));
    x = x + down(torch::relu(up(x)));
    return readout(x.select(1, -1));
  }

  torch::nn::Linear query, key, value, out, up, down, readout;
};
TORCH_MODULE(Transformer);

inline torch::Generator generator_of(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

inline std::string layer_name(std::int64_t l) { return "layers." + std::to_string(l - 1); }  // l = 1 .. L

/// Weights N(0, 1/fan_in), biases N(0, 0.1^2).
inline void initialise(torch::nn::Module& model, torch::Generator& generator) {
  const torch::NoGradGuard no_grad;
  for (torch::Tensor& parameter : model.parameters()) {
    const double scale = parameter.dim() > 1 ? 1 / std::sqrt(static_cast<double>(parameter.size(1))) : 0.1;
    parameter.copy_(torch::randn(parameter.sizes(), generator) * scale);
  }
}

/// A random orthogonal matrix, fp64.
inline torch::Tensor rotation(std::int64_t width, torch::Generator& generator) {
  const auto [q, r] = torch::linalg_qr(torch::randn({width, width}, generator, torch::kDouble));
  return q * r.diagonal().sign();
}

}  // namespace dds::experiments
