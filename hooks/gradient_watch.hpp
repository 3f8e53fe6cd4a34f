// The gradients at the inputs and outputs of one call, taken from the part of the graph that the call makes.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>

#include <cstdint>
#include <dds/hooks.hpp>
#include <functional>
#include <optional>
#include <vector>

namespace dds::hooks {

/// Called once in each backward pass that reaches the call. Where the watch is interposed, what it returns goes on.
using OnGradients = std::function<std::optional<Tensors>(const Tensors& grad_inputs, const Tensors& grad_outputs)>;

/// The graph of one call lies between its outputs and its inputs, and its nodes are younger than the call. Those of
/// them that hand a gradient on to an input are watched, so that nothing has to be put into the graph, and no other
/// consumer of the input counts.
class GradientWatch {
 public:
  /// Before the call, on its thread.
  explicit GradientWatch(const Tensors& inputs);

  /// Puts a node between the inputs and the call, whose gradients can be changed. Returns the inputs to call with.
  Tensors interpose();

  /// After the call.
  void finish(const Tensors& outputs, OnGradients on_gradients) const;

 private:
  Tensors inputs_;
  std::vector<torch::autograd::Edge> edges_;  ///< of the inputs; invalid for one without gradient
  std::uint64_t first_;                       ///< sequence number of the first node that the call may make
};

}  // namespace dds::hooks
