// From one captured run of an operator to the terms of the parameters that it used.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <optional>
#include <vector>

#include "hooks/captured_operator.hpp"
#include "src/per_sample/samples.hpp"
#include "src/per_sample/uses.hpp"

namespace dds::hooks {

/// One run of an operator, with all that its per-sample gradients are made of.
struct Run {
  const CapturedCall& call;
  const CapturedOperator& op;
  SampleRows rows;
  at::Tensor delta;                ///< gradient at the output; undefined if none came
  std::vector<at::Tensor> states;  ///< gradients at the final states of a recurrent layer, undefined where none came
};

/// Adds what `run` contributes, by the kind of its operator.
void add_uses(const Run& run, Uses& uses);

/// The same for each kind. All but Recurrent need delta.
void add_uses(const kind::Product& op, const Run& run, Uses& uses);
void add_uses(const kind::Einsum& op, const Run& run, Uses& uses);
void add_uses(const kind::Convolution& op, const Run& run, Uses& uses);
void add_uses(const kind::Embedding& op, const Run& run, Uses& uses);
void add_uses(const kind::Norm& op, const Run& run, Uses& uses);
void add_uses(const kind::Bilinear& op, const Run& run, Uses& uses);
void add_uses(const kind::Prelu& op, const Run& run, Uses& uses);
/// The recurrence is computed again from the captured input, states and weights, up to the pre-activations of every
/// gate. Autograd gives delta there. Marks with Status::NotReplayable if the result is not the captured output: dropout
/// between layers, weights changed since.
void add_uses(const kind::Recurrent& op, const Run& run, Uses& uses);

/// Dimensions of the output that may count samples; one where the operator leaves no choice.
std::vector<std::int64_t> possible_sample_dims(const CapturedCall& call);

/// Gradients at all that a call gave, from which it is measured which row belongs to which sample.
struct Arrived {
  at::Tensor gradient;             ///< undefined if none came
  std::vector<std::int64_t> dims;  ///< of it, that may count samples
  /// Of the output, that counts samples, where output and states of a recurrent layer stand side by side.
  std::optional<std::int64_t> dim;
};
/// `gradients`: at the output, then at the states.
Arrived arrived_at(const CapturedCall& call, at::TensorList gradients);

}  // namespace dds::hooks
