#include "hooks/loss_ties.hpp"

#include <torch/csrc/autograd/variable.h>

#include <numeric>
#include <unordered_set>

namespace dds::hooks {

void LossTies::call_ends(const at::Tensor& output, bool recomputed) {
  if (output.requires_grad()) {
    const torch::autograd::Edge edge = torch::autograd::impl::gradient_edge(output);
    by_node_[edge.function.get()].push_back(calls_.size());
    keep_.push_back(edge);
  }
  calls_.push_back({{}, recomputed_.size(), recomputed});
}

void LossTies::loss_ends(const at::Tensor& result, bool recomputed) {
  const std::size_t loss = recomputed_.size();
  recomputed_.push_back(recomputed);
  if (!result.requires_grad() || by_node_.empty()) return;
  std::vector<const torch::autograd::Node*> open{torch::autograd::impl::gradient_edge(result).function.get()};
  std::unordered_set<const torch::autograd::Node*> seen{open.front()};
  while (!open.empty()) {
    const torch::autograd::Node* const node = open.back();
    open.pop_back();
    if (const auto here = by_node_.find(node); here != by_node_.end()) {
      for (const CallId call : here->second) calls_[call].losses.push_back(loss);
    }
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      if (edge.function && seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
    }
  }
}

void LossTies::forget_graph() {
  by_node_.clear();
  keep_.clear();
}

std::vector<std::size_t> LossTies::losses_of(const OfCall& call) const {
  std::vector<std::size_t> losses = call.losses;
  if (call.recomputed) {
    if (!losses.empty()) return losses;
    losses.resize(call.losses_before);
    std::iota(losses.begin(), losses.end(), std::size_t{0});
    return losses;
  }
  for (std::size_t loss = call.losses_before; loss < recomputed_.size(); ++loss) {
    if (recomputed_[loss]) losses.push_back(loss);
  }
  return losses;
}

void LossTies::write_into(CallRecord& calls) const {
  for (CallId id = 0; id < calls_.size(); ++id) calls[id].losses = losses_of(calls_[id]);
}

}  // namespace dds::hooks
