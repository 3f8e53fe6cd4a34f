// The operators of LibTorch that the library knows: one table, in which each has its entry.
//
// An entry says what kind of operator it is, and where among its arguments the operands are. Recorder, hooks,
// per-sample gradients and the probe of `dds attach` all ask the table. How a kind is read as the run of a layer stands
// in hooks/layer_run.cpp, how it is read as a loss in hooks/loss_run.cpp, what its parameters' per-sample gradients are
// made of in src/per_sample/operator_uses.hpp.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstddef>
#include <dds/recorder.hpp>
#include <limits>
#include <string_view>
#include <variant>

namespace dds::hooks {

/// The layers that an operator can be a run of.
enum class Family { Contraction, Convolution, Embedding, Norm, Recurrent, Bilinear, Activation };

/// True if layers of this kind run as operators of this family. A raw parameter ("Raw") may be the weight of any but a
/// lookup.
bool kind_fits(std::string_view kind, Family family);

/// Kinds of operators. A `Place` is one among the operator's arguments, kNone where it has no such argument.
namespace kind {

using Place = std::size_t;
inline constexpr Place kNone = std::numeric_limits<Place>::max();

/// beta summand + alpha left @ right, with torch.matmul's rules.
struct Product {
  static constexpr Family family = Family::Contraction;
  Place left, right;
  bool transposed = false;  ///< `right` is given as its transpose, a matrix or a vector
  Place summand = kNone, beta = kNone, alpha = kNone;
};

/// einsum(equation, operands).
struct Einsum {
  static constexpr Family family = Family::Contraction;
};

/// (input, weight, bias, stride, padding, ...).
struct Convolution {
  static constexpr Family family = Family::Convolution;
  Place dilation, groups;
  bool transposed = false;
  Place is_transposed = kNone;  ///< tells it instead, where there is one
};

/// embedding(weight, indices, padding, scaled by frequency) and embedding_bag(weight, indices, offsets, ...).
struct Embedding {
  static constexpr Family family = Family::Embedding;
  bool bag = false;
};

/// Normalisation of argument 0 with an affine part. `over`: what mean and variance are taken over.
struct Norm {
  static constexpr Family family = Family::Norm;
  enum class Over { Layer, RootMeanSquare, Batch, Instance, Group } over;
  Place weight, bias, epsilon;
};

/// Whole sequences, or one step of a cell.
struct Recurrent {
  static constexpr Family family = Family::Recurrent;
  enum class Cell { Lstm, Gru, Tanh, Relu } cell;
  bool one_step = false;
};

/// bilinear(left, right, weight, bias).
struct Bilinear {
  static constexpr Family family = Family::Bilinear;
};

/// prelu(input, weight): one slope for all features, or one for each channel.
struct Prelu {
  static constexpr Family family = Family::Activation;
};

/// A loss of (output, target).
struct Loss {
  Place reduction;
  std::string_view likelihood = "";  ///< the library's likelihood with this loss; empty: none
  bool classes = false;              ///< the targets are classes, in dimension 1 of the output
  CapturedLoss::Difference difference = CapturedLoss::Difference::Unknown;
  bool activated = false;  ///< takes the log-softmax or logistic function of what the network gave
  double slope = 1;        ///< Squares: of the gradient, 1 / beta where there is a beta
  Place beta = kNone;
  Place weights = kNone, more_weights = kNone;  ///< of classes or entries
  Place ignored = kNone;                        ///< the target that counts nothing
  Place smoothing = kNone;                      ///< of labels
};

/// Over the dimension at argument 1. A loss may be given its result instead of its input.
struct LogSoftmax {};

/// The logistic function of each entry, which a loss may be given instead of its input.
struct Logistic {};

/// An addition: a bias may follow a product in this way.
struct Addition {};

}  // namespace kind

struct Operator {
  std::string_view name;
  std::variant<kind::Product, kind::Einsum, kind::Convolution, kind::Embedding, kind::Norm, kind::Recurrent,
               kind::Bilinear, kind::Prelu, kind::Loss, kind::LogSoftmax, kind::Logistic, kind::Addition>
      kind;
  bool bias_may_follow = false;  ///< an addition after it may be the layer's bias

  /// Null if it is of another kind.
  template <class Kind>
  const Kind* as() const {
    return std::get_if<Kind>(&kind);
  }
};

/// The table.
c10::ArrayRef<Operator> all_operators();
/// The entry of an operator. Null if the library does not know it.
const Operator* find_operator(std::string_view name);

/// True if the operator writes into its first argument: "aten::relu_".
bool is_in_place(std::string_view name);
/// "relu" of "aten::relu" and of "aten::relu_".
std::string_view bare_name(std::string_view name);

}  // namespace dds::hooks
