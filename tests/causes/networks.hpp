// Networks with causes to plant in them.
#pragma once

#include <torch/torch.h>

#include <dds/read.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/seed.hpp"

namespace dds::test {

/// Linear layers fc0, fc1, ..., with a function between them.
class Chain : public torch::nn::Module {
 public:
  using Function = at::Tensor (*)(const at::Tensor&);

  Chain(const std::vector<std::int64_t>& widths, Function function) : function_(function) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
      layers.push_back(register_module("fc" + std::to_string(i), torch::nn::Linear(widths[i], widths[i + 1])));
    }
  }
  at::Tensor forward(at::Tensor x) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      x = layers[i](x);
      if (function_ && i + 1 < layers.size()) x = function_(x);
    }
    return x;
  }
  at::Tensor weight(std::size_t i) { return layers[i]->weight.data(); }
  at::Tensor bias(std::size_t i) { return layers[i]->bias.data(); }

  std::vector<torch::nn::Linear> layers;

 private:
  Function function_;
};

inline at::Tensor relu_of(const at::Tensor& x) { return torch::relu(x); }
inline at::Tensor tanh_of(const at::Tensor& x) { return torch::tanh(x); }

inline const Signature& reading_of(const std::vector<Signature>& signatures, const std::string& layer, Side side) {
  for (const Signature& signature : signatures) {
    if (signature.layer == layer && signature.side == side) return signature;
  }
  throw std::runtime_error("no reading of " + layer);
}

/// "fc0 fisher: relu_off:2[3,8]" of each reading with causes that are not the architecture's, a line each.
inline std::string causes_of(const std::vector<Signature>& signatures) {
  std::string text;
  for (const Signature& signature : signatures) {
    std::vector<Cause> found;
    for (const Cause& cause : signature.causes) {
      if (!is_by_architecture(cause.kind)) found.push_back(cause);
    }
    if (found.empty()) continue;
    text += signature.layer + " " + std::string(to_string(signature.side)) + ": " + to_string(found) + "\n";
  }
  return text;
}

}  // namespace dds::test
