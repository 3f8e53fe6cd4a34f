// How the samples lie in the output of a call where nothing is measured: what the user, the operator and shapes tell.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

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
                                                               std::string& doubt) const {
  const auto layer = layer_of(site);
  if (!layer) return std::nullopt;
  if (auto told = told_rows(site, call)) return told;
  const hooks::CapturedOperator& op = *call.captured_operator();
  auto dim = hooks::sample_dim(*op.entry, op.args(), op.weight, call.output);
  if (!dim && places_[*layer].sequence_first && call.output.dim() == 3) dim = 1;
  if (!dim) {
    const auto possible = hooks::possible_sample_dims(call);
    if (possible.size() == 1) dim = possible.front();
  }
  if (!dim || call.output.size(*dim) != samples_) return std::nullopt;
  if (op.axes) doubt = op.axes->doubt(op.output_axes[static_cast<std::size_t>(*dim)], samples_);
  if (!doubt.empty()) return std::nullopt;
  return SampleRows{SampleRows::Order::SampleMajor, samples_, *dim, {}};
}

}  // namespace dds
