#include <ATen/ops/ones.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "src/causes/search.hpp"

namespace dds {
namespace {

constexpr auto kSoftmaxes =
    std::to_array<std::string_view>({"log_softmax", "_log_softmax", "softmax", "_softmax", "cross_entropy_loss"});

/// The kind of the layer that reads the output as it is.
std::string kind_of_reader(const CauseSearch& search) {
  const Surroundings& around = search.around();
  if (!around.read_directly) return "";
  const CauseEvidence* const reader = search.all.find(around.read_by, Side::Fisher);
  return reader ? reader->layer->kind() : "";
}

/// Whose gradients sum to zero over the units.
std::optional<CauseKind> sums_to_zero(const CauseSearch& search) {
  const std::string& by = search.around().taken_by;
  if (std::find(kSoftmaxes.begin(), kSoftmaxes.end(), by) != kSoftmaxes.end()) return CauseKind::Softmax;
  if (by == "layer_norm" || by == "native_layer_norm" || kind_of_reader(search) == "LayerNorm") {
    return CauseKind::LayerNorm;
  }
  return std::nullopt;
}

/// What the outputs of a LayerNorm lie across, where no gain is zero.
at::Tensor inverse_gain(const CauseSearch& search) {
  const at::Tensor& gain = search.around().gain;
  if (search.reading.layer->kind() != "LayerNorm" || !gain.defined() || gain.numel() != search.span.width()) return {};
  const at::Tensor inverse = gain.to(at::kCPU, at::kDouble).reciprocal();
  return inverse.isfinite().all().item<bool>() ? inverse.unsqueeze(0) : at::Tensor();
}

}  // namespace

void find_kernels(CauseSearch& search) {
  Cause cause;
  at::Tensor direction;
  if (search.side() == Side::Fisher) {
    if (const std::optional<CauseKind> kind = sums_to_zero(search)) {
      cause.kind = *kind;
      direction = at::ones({1, search.span.width()}, search.span.factor().options());
    }
  } else if (search.side() == Side::Activation) {
    cause.kind = CauseKind::LayerNorm;
    direction = inverse_gain(search);
  }
  if (!direction.defined() || !search.span.take(direction, search.dead, cause)) return;
  Signature& signature = *search.reading.signature;
  if (cause.directions > search.by_architecture) {  // the bound does not know of it
    search.left -= cause.directions - search.by_architecture;
    search.by_architecture = cause.directions;
    if (signature.dead_directions) {
      signature.structural_bound = *signature.width - search.by_architecture;
      signature.dead_directions = search.left;
    }
  }
  search.causes.push_back(std::move(cause));
}

}  // namespace dds
