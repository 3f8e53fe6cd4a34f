#include "hooks/passes.hpp"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/graph_task.h>

namespace dds::hooks {

PassKind kind_of_pass(const Trained& trained) {
  // A pass to all leaves has no list of what it runs.
  const auto* runs = torch::autograd::get_current_graph_task_exec_info();
  if (!runs || runs->empty()) return PassKind::Accumulates;
  PassKind kind = PassKind::Beside;
  for (const auto& [node, info] : *runs) {
    if (!info.should_execute()) continue;
    const auto* leaf = dynamic_cast<const torch::autograd::AccumulateGrad*>(node);
    if (!leaf || (trained.leaves && trained.leaves->count(leaf->variable.unsafeGetTensorImpl()) == 0)) continue;
    if (!info.captures_) return PassKind::Accumulates;
    kind = PassKind::Asks;
  }
  return kind;
}

}  // namespace dds::hooks
