#include "src/attach/reached.hpp"

#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <unordered_set>

namespace dds::attach {
namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Node;

}  // namespace

Reached reached_by(const std::vector<Edge>& roots, const std::vector<Edge>& outputs) {
  Reached reached;
  std::unordered_set<const Node*> asked, seen;
  for (const Edge& edge : outputs) asked.insert(edge.function.get());
  std::vector<Node*> open;
  const auto meet = [&](const Edge& edge) {
    if (edge.function && seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  };
  for (const Edge& edge : roots) meet(edge);
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    for (const Edge& edge : node->next_edges()) meet(edge);
    if (node->num_outputs() > 0) continue;
    const auto* leaf = dynamic_cast<const AccumulateGrad*>(node);
    if (!leaf || !leaf->variable.defined()) continue;
    (outputs.empty() || asked.contains(node) ? reached.wanted : reached.passed).push_back(leaf->variable);
  }
  // The walk comes from the loss, and meets last what was used first.
  std::reverse(reached.wanted.begin(), reached.wanted.end());
  return reached;
}

}  // namespace dds::attach
