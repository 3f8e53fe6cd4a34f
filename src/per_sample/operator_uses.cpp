#include "src/per_sample/operator_uses.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <variant>

#include "hooks/layer_run.hpp"

namespace dds::hooks {

void add_uses(const Run& run, Uses& uses) {
  std::visit(
      [&]<class Kind>(const Kind& each) {
        if constexpr (requires { Kind::family; }) {
          constexpr bool linear =
              Kind::family != Family::Norm && Kind::family != Family::Recurrent && Kind::family != Family::Activation;
          if (!linear && run.delta.defined() && run.delta.is_complex()) {
            return uses.mark(Status::NotReplayable,
                             "complex numbers in a layer that is not linear in its weights' place");
          }
          if (run.delta.defined() || Kind::family == Family::Recurrent) add_uses(each, run, uses);
        }
      },
      run.op.entry->kind);
}

std::vector<std::int64_t> possible_sample_dims(const CapturedCall& call) {
  const CapturedOperator& op = *call.captured_operator();
  if (const auto known = sample_dim(*op.entry, op.args(), op.weight, call.output)) return {*known};
  if (op.entry->as<kind::Convolution>()) return {};
  std::vector<std::int64_t> dims;
  const std::vector<std::int64_t>& features = call.output_features;
  for (std::int64_t dim = 0; dim < call.output.dim(); ++dim) {
    if (std::find(features.begin(), features.end(), dim) == features.end()) dims.push_back(dim);
  }
  return dims;
}

Arrived arrived_at(const CapturedCall& call, at::TensorList gradients) {
  const CapturedOperator& op = *call.captured_operator();
  const auto* recurrent = op.entry->as<kind::Recurrent>();
  const auto dim = sample_dim(*op.entry, op.args(), op.weight, call.output);
  if (!recurrent || !dim) return {gradients.front(), possible_sample_dims(call), std::nullopt};
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const std::int64_t samples = i == 0 ? *dim : recurrent->one_step ? 0 : 1;
    if (gradients[i].defined()) parts.push_back(gradients[i].movedim(samples, 0).flatten(1));
  }
  return {parts.empty() ? at::Tensor() : at::cat(parts, 1), {0}, dim};
}

}  // namespace dds::hooks
