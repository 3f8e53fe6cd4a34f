// The rows of a layer's calls, side by side with the bounds on their ranks.
#pragma once

#include <torch/torch.h>

#include <dds/recorder.hpp>
#include <functional>
#include <string>
#include <vector>

#include "tests/support.hpp"

namespace dds::test {

/// Calls `look` for each side of each layer that has rows: its name "layer side", the rows of all calls, their bound.
inline void for_each_side(
    const Captured& captured,
    const std::function<void(const std::string& side, const at::Tensor& rows, const RankBound& bound)>& look) {
  for (const CapturedLayer& layer : captured.layers) {
    std::vector<at::Tensor> outputs, inputs, gradients;
    for (const CapturedCall& call : layer.calls) {
      outputs.push_back(as_rows(call.output, call.output_features));
      if (!call.input_features.empty()) inputs.push_back(as_rows(call.inputs[0], call.input_features));
      if (call.gradient().defined()) gradients.push_back(as_rows(call.gradient(), call.output_features));
    }
    if (!outputs.empty()) look(layer.layer + " output", torch::cat(outputs), layer.output_bound);
    if (!inputs.empty()) look(layer.layer + " input", torch::cat(inputs), layer.input_bound);
    if (!gradients.empty()) look(layer.layer + " gradient", torch::cat(gradients), layer.gradient_bound);
  }
}

}  // namespace dds::test
