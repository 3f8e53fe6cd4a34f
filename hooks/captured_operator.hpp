// What an operator was given and what came of it, for whoever computes with it again.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/axes.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {

/// One run of an operator; kept with its CapturedCall on request (RecorderOptions::operators). Its inputs stand there,
/// where they are saved from what overwrites them.
struct CapturedOperator {
  const Operator* entry = nullptr;  ///< in the table of operators
  /// Tensors detached, but for parameters and what was computed from them with RecorderOptions::graph.
  std::vector<c10::IValue> arguments;
  /// Of operands that come as a list (einsum): the place of each among the inputs of the call, -1 for the weight.
  std::vector<std::int64_t> listed;
  Arguments args() const { return Arguments(arguments.data(), arguments.size()); }
  at::Tensor weight;  ///< the operand that is a parameter, as the operator took it
  at::Tensor bias;    ///< that an addition after the operator brought in; undefined if there was none

  /// Further outputs, each with the gradient that arrives there: the final states of a recurrent layer.
  std::vector<CapturedCall> states;
  /// True if the output was computed from the states (a cell that ran as several operators): their gradients then hold
  /// what came through the output.
  bool output_from_states = false;

  /// Without RecorderOptions::graph: what the dimensions of the output count.
  std::shared_ptr<const Axes> axes;
  Axes::Ids output_axes;
  /// Of the whole recording: layers whose parameters an operator took that is no run of them, and its name.
  std::shared_ptr<const std::map<std::string, std::string>> beside;

  /// With RecorderOptions::graph: where the gradients of the output and of the states come in, and `weight` with its
  /// own history.
  std::vector<torch::autograd::Edge> edges;
};

}  // namespace dds::hooks
