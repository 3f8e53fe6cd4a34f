#include "hooks/rank_bounds.hpp"

#include <algorithm>

#include "hooks/features.hpp"

namespace dds::hooks {
namespace {

std::int64_t saturating_product(std::int64_t a, std::int64_t b) {
  return a != 0 && b > kUnbounded / a ? kUnbounded : a * b;
}

std::int64_t saturating_sum(std::int64_t a, std::int64_t b) { return b > kUnbounded - a ? kUnbounded : a + b; }

}  // namespace

std::int64_t output_bound(const LayerRun& run, std::int64_t width, const CallRecord& calls) {
  std::int64_t incoming = run.fan_in;
  if (run.patch != kUnbounded) {
    const at::Tensor& input = run.inputs.front();
    const auto before = calls.that_gave(input);
    if (before && from_front(run.input_features, input.dim()) == calls[*before].output_features) {
      incoming = std::min(incoming, saturating_product(run.patch, calls[*before].output_bound));
    }
  }
  return std::min(width, saturating_sum(incoming, run.bias ? 1 : 0));
}

std::int64_t bound_with_bias(std::int64_t bound, std::int64_t width) {
  return std::min(width, saturating_sum(bound, 1));
}

void Consumers::bound_gradients(CallRecord& calls) const {
  for (CallId id = calls.size(); id-- > 0;) {
    const auto found = by_call_.find(id);
    if (found == by_call_.end()) continue;
    const Of& consumers = found->second;
    if (consumers.others || (consumers.started == 0 && !consumers.softmax)) continue;
    CapturedCall& captured = calls[id];
    const std::int64_t width = width_of(captured.output, captured.output_features);
    std::int64_t bound = consumers.softmax ? width - 1 : 0;
    for (const CallId product : consumers.products) bound = saturating_sum(bound, calls[product].gradient_bound);
    if (consumers.products.size() < consumers.started) bound = width;  // one whose own gradient is not known
    captured.gradient_bound = std::min(width, bound);
  }
}

}  // namespace dds::hooks
