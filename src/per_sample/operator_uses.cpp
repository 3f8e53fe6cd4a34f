#include "src/per_sample/operator_uses.hpp"

#include <algorithm>
#include <variant>

#include "hooks/layer_run.hpp"

namespace dds::hooks {

void add_uses(const Run& run, Uses& uses) {
  std::visit(
      [&]<class Kind>(const Kind& each) {
        if constexpr (requires { Kind::family; }) {
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

}  // namespace dds::hooks
