// How the samples lie in the output of a call where nothing is measured: what the user, the operator and shapes tell.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "hooks/layer_run.hpp"
#include "src/base/check.hpp"
#include "src/base/glob.hpp"
#include "src/per_sample/gradients.hpp"
#include "src/per_sample/operator_uses.hpp"

namespace dds {

using hooks::SampleRows;

std::optional<SampleRows> PerSampleGradients::Impl::told_rows(const CapturedLayer& site,
                                                              const CapturedCall& call) const {
  using Order = SampleRows::Order;
  const std::int64_t n = samples_;
  const auto layer = layer_of(site);
  if (!layer) return std::nullopt;
  const std::string& name = layers_[*layer].name;
  for (const auto& [pattern, rule] : options_.samples()) {
    if (!glob_match(pattern, name)) continue;
    const std::int64_t dims = call.output.dim(), dim = rule.dim < 0 ? rule.dim + dims : rule.dim;
    if (dim < 0 || dim >= dims || call.output.size(dim) % n != 0) {
      throw_invalid(
          kPerSampleGradients, fmt::format("samples() for '{}'", name), fmt::format("dimension {}", rule.dim),
          fmt::format("one of the output [{}] that counts {} samples", fmt::join(call.output.sizes(), ", "), n));
    }
    return SampleRows{
        rule.order == SampleDim::Order::SampleMajor ? Order::SampleMajor : Order::PositionMajor, n, dim, {}};
  }
  if (n == 1) return SampleRows{Order::Whole, 1, 0, at::zeros({1}, call.output.options().dtype(at::kLong))};
  return std::nullopt;
}

std::optional<SampleRows> PerSampleGradients::Impl::known_rows(const CapturedLayer& site, const CapturedCall& call,
                                                               bool as_many_positions) const {
  const auto layer = layer_of(site);
  if (!layer) return std::nullopt;
  if (auto told = told_rows(site, call)) return told;
  if (is_shared(call)) return std::nullopt;
  const hooks::CapturedOperator& op = *call.captured_operator();
  auto dim = hooks::sample_dim(*op.entry, op.args(), op.weight, call.output);
  if (!dim && places_[*layer].sequence_first && call.output.dim() == 3) dim = 1;
  if (!dim) {
    const auto possible = hooks::possible_sample_dims(call);
    if (possible.size() == 1 && !as_many_positions) dim = possible.front();
  }
  if (!dim || call.output.size(*dim) != samples_) return std::nullopt;
  return SampleRows{SampleRows::Order::SampleMajor, samples_, *dim, {}};
}

/// True if the rows of a call may be positions, whose gradients all samples add to: rows of a parameter or a buffer, or
/// lookups of a range of indices.
bool PerSampleGradients::Impl::is_shared(const CapturedCall& call) const {
  if (call.inputs.empty()) return false;
  const at::Tensor& input = call.inputs.front();
  if (index_.find(input) || buffers_.find(input)) return true;
  const auto* lookup = call.captured_operator()->entry->as<hooks::kind::Embedding>();
  if (!lookup || lookup->bag || input.dim() != 1 || input.size(0) < 2) return false;
  return at::equal(input - input[0], at::arange(input.size(0), input.options()));
}

bool PerSampleGradients::Impl::has_positions_like_samples(const Captured& captured) const {
  const auto counts = [&](const CapturedCall& call) {
    const auto dims = hooks::possible_sample_dims(call);
    return std::count_if(dims.begin(), dims.end(), [&](std::int64_t dim) { return call.output.size(dim) == samples_; });
  };
  return std::any_of(captured.layers.begin(), captured.layers.end(), [&](const CapturedLayer& site) {
    return std::any_of(site.calls.begin(), site.calls.end(),
                       [&](const CapturedCall& call) { return call.captured_operator() && counts(call) > 1; });
  });
}

}  // namespace dds
