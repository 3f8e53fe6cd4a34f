// What the operators of LibTorch mean: which operand is a layer's weight, which its input, and which dimensions of the
// output are its features. Nothing here knows of recordings; an operator is its name and its arguments.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dds::hooks {

/// The families of operators that run a layer.
enum class Family { Contraction, Convolution, Embedding, Norm, Recurrent, Bilinear, Activation };

inline constexpr std::int64_t kUnbounded = std::numeric_limits<std::int64_t>::max();

/// An operator read as the run of a layer.
struct LayerRun {
  Family family = Family::Contraction;
  at::Tensor weight;                          ///< the operand that is a parameter
  std::vector<at::Tensor> inputs;             ///< the layer's input first
  std::vector<std::int64_t> output_features;  ///< dimensions of the output; negative ones count from the end
  std::vector<std::int64_t> input_features;   ///< the same for inputs[0]; empty if it has no features
  bool bias = false;                          ///< the operator adds one
  bool coupled = false;                       ///< mixes samples
  bool positions = false;                     ///< rows are positions although the output has only two dimensions
  /// rank(output rows) <= patch * rank(input rows) + bias, and <= fan_in + bias.
  std::int64_t patch = kUnbounded;
  std::int64_t fan_in = kUnbounded;
};

/// True if layers of this kind run as operators of this family; for a raw parameter ("Raw") of any but a lookup.
bool kind_fits(std::string_view kind, Family family);

/// Tells whether a tensor is a parameter, or was computed from parameters alone.
using IsWeight = std::function<bool(const at::Tensor&)>;

/// Reads operator `name` with `args` as a layer's run. Empty if it is not one of those known, or no operand in the
/// place of a weight is one. Where both operands of a product are weights, the second in the order of the operator is
/// taken.
std::optional<LayerRun> match_layer(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                    const IsWeight& is_weight);

/// The subscripts of an einsum equation: one string of labels for each operand, and the output's. Empty if it has an
/// ellipsis.
std::optional<std::pair<std::vector<std::string>, std::string>> parse_einsum(const std::string& equation);

/// A loss operator: how it reduces, over how many terms it averages, and what its gradient subtracts.
struct LossRun {
  enum class Reduction { None, Mean, Sum } reduction = Reduction::None;
  at::Tensor terms;          ///< 0-d, fp64; undefined where the arguments do not tell (class weights)
  std::int64_t targets = 0;  ///< number of targets, ignored ones included

  /// The gradient at `input`, or at what went into its activation: CapturedLoss::Difference.
  CapturedLoss::Difference difference = CapturedLoss::Difference::Unknown;
  at::Tensor input;
  bool activated = false;    ///< `input` is a log-softmax or a logistic function of what is meant
  std::int64_t classes = 0;  ///< Softmax: the dimension of the classes
  double slope = 0;          ///< Squares
};
std::optional<LossRun> match_loss(std::string_view name, c10::ArrayRef<const c10::IValue> args);

/// An activation that a loss may undo: what it was taken of.
struct ActivationRun {
  CapturedLoss::Difference difference = CapturedLoss::Difference::Unknown;  ///< Softmax: a log-softmax
  at::Tensor input;
  std::int64_t classes = 0;  ///< Softmax: its dimension
};
std::optional<ActivationRun> match_activation(std::string_view name, c10::ArrayRef<const c10::IValue> args);

/// True for a softmax over the last dimension: the gradient at its input sums to zero over each row.
bool is_softmax(std::string_view name, c10::ArrayRef<const c10::IValue> args);

/// True for "aten::add" and "aten::add_", the ways in which a bias follows a product.
bool is_addition(std::string_view name);

/// True if the operator writes into its first argument: "aten::relu_".
bool is_in_place(std::string_view name);

/// Calls visit for every tensor among the arguments, those in lists included.
void for_each_tensor(c10::ArrayRef<const c10::IValue> args, const std::function<void(const at::Tensor&)>& visit);

}  // namespace dds::hooks
