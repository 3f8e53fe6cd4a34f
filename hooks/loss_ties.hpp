// Which losses the output of each call went into, by the autograd graph.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "hooks/call_record.hpp"

namespace dds::hooks {

/// Not safe for several threads at once.
class LossTies {
 public:
  /// The next call gave `output`. `recomputed`: it ran within a backward pass.
  void call_ends(const at::Tensor& output, bool recomputed);
  /// The next loss gave `result`. Walks over the graph behind it.
  void loss_ends(const at::Tensor& result, bool recomputed);
  /// No loss comes any more. Until then the graph is kept alive.
  void forget_graph();
  /// Sets CapturedCall::losses of every call.
  void write_into(CallRecord& calls) const;

 private:
  struct OfCall {
    std::vector<std::size_t> losses;  ///< whose graph has the call in it
    std::size_t losses_before;        ///< number of losses before the call
    bool recomputed;
  };
  std::vector<std::size_t> losses_of(const OfCall& call) const;

  std::vector<OfCall> calls_;     // by CallId
  std::vector<bool> recomputed_;  // by place of the loss
  std::unordered_map<const torch::autograd::Node*, std::vector<CallId>> by_node_;
  std::vector<torch::autograd::Edge> keep_;  // keeps these nodes alive
};

}  // namespace dds::hooks
