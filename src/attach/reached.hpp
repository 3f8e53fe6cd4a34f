// The leaves of a backward pass, from its graph: whoever computes them, and whether anybody listened or not.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <vector>

namespace dds::attach {

struct Reached {
  std::vector<at::Tensor> wanted;  ///< leaves whose gradients the pass computes, those that are used first come first
  std::vector<at::Tensor> passed;  ///< leaves of the graph whose gradients nobody asked for
};

/// Of the pass from `roots`. `outputs` are what gradients were asked for, as by torch.autograd.grad; none: all leaves.
/// The walk takes a time like the one that the engine takes to prepare the same pass.
Reached reached_by(const std::vector<torch::autograd::Edge>& roots, const std::vector<torch::autograd::Edge>& outputs);

}  // namespace dds::attach
