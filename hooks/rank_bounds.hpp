// Bounds on the ranks of captured rows, by the shapes of layers that are chained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "hooks/call_record.hpp"
#include "hooks/layer_run.hpp"

namespace dds::hooks {

/// rank(output rows) <= min(width, patch * rank(input rows) + [bias], fan_in + [bias]), where the input's rank is
/// bounded by the call that gave it.
std::int64_t output_bound(const LayerRun& run, std::int64_t width, const CallRecord& calls);

/// `bound` of rows to which a bias is added.
std::int64_t bound_with_bias(std::int64_t bound, std::int64_t width);

/// Who reads the output of each call. Not safe for several threads at once.
class Consumers {
 public:
  /// A product over the output's features starts. It may never end as a captured call.
  void product_starts(CallId read) { by_call_[read].started += 1; }
  void product_ends(CallId read, CallId product) { by_call_[read].products.push_back(product); }
  /// A softmax over the output's features.
  void softmax(CallId read) { by_call_[read].softmax = true; }
  void other(CallId read) { by_call_[read].others = true; }

  /// Sets gradient_bound of every call: rank(D) <= the sum over the consumers. A product adds the rank of its own
  /// gradient, a softmax width - 1, since the gradient at its input sums to zero. Any other consumer may give full
  /// rank.
  void bound_gradients(CallRecord& calls) const;

 private:
  struct Of {
    std::size_t started = 0;
    std::vector<CallId> products;
    bool softmax = false;
    bool others = false;
  };
  std::unordered_map<CallId, Of> by_call_;
};

}  // namespace dds::hooks
