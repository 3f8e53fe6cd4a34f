// Models for a sampler's chains to run on, with all their trainable weights as one vector.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/problem.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace dds {

/// Names of the floating-point parameters of `model` that require grad, in its own order: what a chain moves.
std::vector<std::string> trainable_parameters(const torch::nn::Module& model);

/// A model whose parameters of the given names are views of one contiguous vector, so that an update of all weights is
/// a few vector operations however many parameters there are. Tied parameters are in it once.
///
/// The module must be in eval mode. Where it is the caller's own, a ModelGuard puts its parameters back.
class Replica {
 public:
  /// Throws InvalidArgument if a parameter is missing, or if they differ in type or device.
  Replica(std::shared_ptr<torch::nn::Module> module, Forward forward, const std::vector<std::string>& names);

  /// All weights: writing into it in place moves the model.
  const at::Tensor& weights() const { return weights_; }

  at::Tensor output(const std::vector<at::Tensor>& inputs) const { return forward_(*module_, inputs); }

  /// Gradient of scale * sum(values) in the layout of `weights`; parameters that it does not depend on give zeros. The
  /// backward starts at `values` itself: for small models the nodes of a mean cost as much as the rest. No `.grad` is
  /// touched. `Keep`: the graph of the values can be run through again; `Differentiable`: the result has a graph too.
  enum class Graph { Free, Keep, Differentiable };
  at::Tensor gradient(const at::Tensor& values, double scale = 1, Graph graph = Graph::Free) const;
  /// The same in parts, one a parameter in the order of `weights`; undefined for those that it does not depend on.
  std::vector<at::Tensor> gradient_parts(const at::Tensor& values, double scale = 1, Graph graph = Graph::Free) const;
  /// Number of weights in each part.
  const std::vector<std::int64_t>& part_sizes() const { return sizes_; }

 private:
  std::shared_ptr<torch::nn::Module> module_;
  Forward forward_;
  std::vector<at::Tensor> parameters_;
  std::vector<std::int64_t> sizes_;
  at::Tensor weights_;
};

/// A second module like `model`, in eval mode and with the same weights, made by Module::clone: null where the model
/// cannot be cloned (it must be a torch::nn::Cloneable). Draws from the default generator.
std::shared_ptr<torch::nn::Module> clone_model(torch::nn::Module& model);

/// A module made by `factory`, in eval mode, with parameters and buffers copied by name. Throws InvalidArgument naming
/// those that one of the two lacks or that differ in shape.
std::shared_ptr<torch::nn::Module> build_model(const std::function<std::shared_ptr<torch::nn::Module>()>& factory,
                                               const torch::nn::Module& model);

}  // namespace dds
