// Models on which the chains of a sampler run, with all trainable weights as one vector.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/problem.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace dds {

/// The names of the parameters of `model` that require grad, real or complex, in the model's order. These are what a
/// chain moves.
std::vector<std::string> trainable_parameters(const torch::nn::Module& model);

/// The parameters of the given names, in their order, but complex ones first. Tied ones are one parameter.
/// Throws InvalidArgument for a name that the model does not have.
std::vector<at::Tensor> distinct_parameters(const torch::nn::Module& model, const std::vector<std::string>& names);

/// The numbers of a tensor in one row. A complex number is two, its real and its imaginary part. A gradient by
/// autograd is then that by these numbers. Sparse tensors become dense.
at::Tensor as_reals(const at::Tensor& tensor);

/// A model whose parameters of the given names are views of one contiguous vector. An update of all weights is then a
/// few vector operations, however many parameters there are. Tied parameters are in the vector once. The vector is
/// real: see `as_reals` for complex parameters, which come first.
///
/// The module must be in eval mode. A caller's own module needs a ModelGuard, which puts its parameters back.
class Replica {
 public:
  /// Throws InvalidArgument if a parameter is missing, if there is none, or if they differ in type or device.
  Replica(std::shared_ptr<torch::nn::Module> module, Forward forward, const std::vector<std::string>& names);

  torch::nn::Module& module() const { return *module_; }
  /// All weights. Writing into them in place moves the model.
  const at::Tensor& weights() const { return weights_; }

  at::Tensor output(const std::vector<at::Tensor>& inputs) const { return forward_(*module_, inputs); }

  /// What becomes of the graph of the values in `gradient`.
  enum class Graph {
    Free,           ///< it is freed
    Keep,           ///< it can be run through again
    Differentiable  ///< the same, and the gradient has a graph too
  };
  /// The gradient of scale * sum(values) in the layout of `weights`, zero for parameters that it does not depend on. No
  /// `.grad` is touched. The backward pass starts at `values`: in a small model the nodes of a mean would cost as much
  /// as the rest.
  at::Tensor gradient(const at::Tensor& values, double scale = 1, Graph graph = Graph::Free) const;
  /// The same, a dense real tensor for each parameter in the order of `weights`. Undefined for those that it does not
  /// depend on.
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

/// A second module like `model`, by Module::clone, in eval mode and with the same weights. Null for a model that is no
/// torch::nn::Cloneable. Draws from the default generator.
std::shared_ptr<torch::nn::Module> clone_model(torch::nn::Module& model);

/// A module made by `factory`, in eval mode, with the parameters and buffers of `model`, copied by name.
/// Throws InvalidArgument for a parameter or buffer that one of the two lacks, or whose shapes differ.
std::shared_ptr<torch::nn::Module> build_model(const std::function<std::shared_ptr<torch::nn::Module>()>& factory,
                                               const torch::nn::Module& model);

}  // namespace dds
