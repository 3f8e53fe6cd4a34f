// From one captured run of an operator to the terms of the parameters that it used.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <dds/signature.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hooks/captured_operator.hpp"
#include "src/per_sample/samples.hpp"
#include "src/per_sample/terms.hpp"

namespace dds::hooks {

/// The registered parameter that a tensor is, or is a view of.
struct ParameterView {
  std::size_t parameter;  ///< which
  std::int64_t offset;    ///< of the tensor's first entry in the parameter's memory
  std::int64_t numel;     ///< of the parameter
};
using FindParameter = std::function<std::optional<ParameterView>(const at::Tensor&)>;

/// One run of an operator with all that its per-sample gradients are made of.
struct Run {
  const CapturedCall& call;
  const CapturedOperator& op;
  SampleRows rows;
  at::Tensor delta;                ///< gradient at the output; undefined: none came
  std::vector<at::Tensor> states;  ///< gradients at the final states of a recurrent layer, undefined where none came
};

/// What a run contributes, and to which parameters.
class Uses {
 public:
  explicit Uses(FindParameter find) : find_(std::move(find)) {}

  struct Placed {
    std::size_t parameter;
    Term term;
  };
  /// A weight that was computed from parameters, with the gradient of each sample with respect to it, (n, its shape).
  struct Derived {
    at::Tensor weight;
    at::Tensor gradients;
  };
  const std::vector<Placed>& placed() const { return placed_; }
  const std::vector<Derived>& derived() const { return derived_; }
  StatusSet status() const { return status_; }
  const std::string& detail() const { return detail_; }

  /// A product whose entries are those of `operand` in the order of its dimensions `groups`, `rows`, `columns`. The
  /// others repeat.
  void add_product(const at::Tensor& operand, Product product, const std::vector<std::int64_t>& groups,
                   const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& columns);
  /// A product whose entries are those of `operand` in order, the first dimension split into groups and rows.
  void add_product(const at::Tensor& operand, Product product);
  /// Any form whose entries are those of `operand` in order. Nothing happens if that is undefined.
  void add(const at::Tensor& operand, std::variant<Product, Lookup, Sum, Dense> form);
  /// Whether a tensor is a registered parameter, or part of one.
  bool knows(const at::Tensor& tensor) const { return find_(tensor).has_value(); }
  /// What is to be said of them, or that there are none, and why.
  void mark(StatusSet status, std::string detail);

 private:
  FindParameter find_;
  std::vector<Placed> placed_;
  std::vector<Derived> derived_;
  StatusSet status_;
  std::string detail_;
};

/// The dimension of the output that counts samples, where the operator leaves no choice.
std::optional<std::int64_t> known_sample_dim(const CapturedCall& call, const CapturedOperator& op);

/// Dimensions of the output that may count samples.
std::vector<std::int64_t> possible_sample_dims(const CapturedCall& call, const CapturedOperator& op);

/// Adds what `run` contributes.
void add_uses(const Run& run, Uses& uses);

/// The same for LSTM, GRU and simple RNN, whole sequences or cells: the recurrence is computed again from the captured
/// input, states and weights, up to the pre-activations of every gate, at which autograd then gives delta. Marks with
/// Status::NotReplayable if what it computes is not the captured output: dropout between layers, weights changed since.
void add_recurrent_uses(const Run& run, Uses& uses);

}  // namespace dds::hooks
