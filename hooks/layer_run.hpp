// An operator read as the run of a layer. Nothing here knows of recordings: an operator is its entry and its arguments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {

inline constexpr std::int64_t kUnbounded = std::numeric_limits<std::int64_t>::max();

struct LayerRun {
  Family family = Family::Contraction;
  at::Tensor weight;                          ///< the operand that is a parameter
  std::vector<at::Tensor> inputs;             ///< the layer's input first
  std::vector<std::int64_t> output_features;  ///< dimensions of the output; negative ones count from the end
  std::vector<std::int64_t> input_features;   ///< the same of inputs[0]; empty if it has no features
  bool bias = false;                          ///< the operator adds one
  bool coupled = false;                       ///< mixes samples
  bool positions = false;                     ///< rows are positions although the output has only two dimensions
  /// rank(output rows) <= patch * rank(input rows) + bias, and <= fan_in + bias.
  std::int64_t patch = kUnbounded;
  std::int64_t fan_in = kUnbounded;
};

/// Tells whether a tensor is a parameter, or was computed from parameters alone.
using IsWeight = std::function<bool(const at::Tensor&)>;

/// Empty if the operator runs no layer, or if no operand in the place of a weight is one. Where both operands of a
/// product are weights, the second is taken.
std::optional<LayerRun> read_layer(const Operator& op, Arguments args, const IsWeight& is_weight);

/// The dimension of the output that counts samples. Empty where the operator leaves a choice.
std::optional<std::int64_t> sample_dim(const Operator& op, Arguments args, const at::Tensor& weight,
                                       const at::Tensor& output);

/// The subscripts of an einsum equation: the labels of each operand, and of the output. Empty for an equation with an
/// ellipsis.
std::optional<std::pair<std::vector<std::string>, std::string>> parse_einsum(const std::string& equation);

}  // namespace dds::hooks
