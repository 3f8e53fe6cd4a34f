#include "src/reading/finite.hpp"

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"

namespace dds {
namespace {

bool is_finite(const at::Tensor& tensor) {
  return !tensor.defined() || !is_differentiable(tensor.scalar_type()) || at::isfinite(tensor).all().item<bool>();
}

/// Throws, with the first entry that is not finite.
[[noreturn]] void refuse(const std::string& name, const at::Tensor& tensor, std::int64_t first) {
  const at::Tensor wrong = at::isfinite(tensor).logical_not().nonzero();
  std::vector<std::int64_t> place;
  for (std::int64_t dim = 0; dim < wrong.size(1); ++dim) place.push_back(wrong[0][dim].item<std::int64_t>());
  at::Tensor value = tensor;
  for (const std::int64_t index : place) value = value[index];
  place.front() += first;
  throw_invalid("read", fmt::format("{}[{}]", name, fmt::join(place, ", ")),
                tensor.is_complex() ? std::string("not finite") : value_text(value.item<double>()),
                fmt::format("a finite number, as the network's parameters are ({} entries of the batch are none)",
                            wrong.size(0)));
}

bool reached(const Captured& captured) {
  return std::any_of(captured.layers.begin(), captured.layers.end(), [](const CapturedLayer& layer) {
    return std::any_of(layer.calls.begin(), layer.calls.end(), [](const CapturedCall& call) {
      return !is_finite(call.output) || (!call.inputs.empty() && !is_finite(call.inputs.front()));
    });
  });
}

}  // namespace

void check_finite_inputs(const Data& batch, std::int64_t first, const Captured& captured, const at::Tensor& output,
                         const std::vector<at::Tensor>& parameters) {
  const auto wrong = std::find_if_not(batch.inputs.begin(), batch.inputs.end(), is_finite);
  if (wrong == batch.inputs.end() || !std::all_of(parameters.begin(), parameters.end(), is_finite)) return;
  if (is_finite(output) && !reached(captured)) return;
  refuse(fmt::format("inputs[{}]", wrong - batch.inputs.begin()), *wrong, first);
}

void check_finite_targets(const Data& batch, std::int64_t first, const at::Tensor& output, const at::Tensor& losses) {
  if (is_finite(batch.targets) || is_finite(losses) || !is_finite(output)) return;
  refuse("targets", batch.targets, first);
}

}  // namespace dds
