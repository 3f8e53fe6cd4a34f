#include "hooks/pass_graph.hpp"

#include <ATen/ops/any.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/ne.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "hooks/memory.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {
namespace {

/// A pass with more operators is not looked at.
constexpr std::size_t kMostNodes = 50'000;

Node leaf(const at::Tensor& tensor) {
  Node node;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    const bool repeats = tensor.layout() == at::kStrided && tensor.stride(dim) == 0;
    node.sizes.push_back(repeats ? std::min<std::int64_t>(1, tensor.size(dim)) : tensor.size(dim));
  }
  return node;
}

/// Without a rule any dependence is possible.
void depend_unknown(const PassGraph::Run& run, const at::Tensor& output, Node& node) {
  node.kind = Node::Kind::Sum;
  for (const auto& [tensor, operand] : run.operands) {
    Link link;
    link.way = node.weight ? Link::Way::Other : Link::Way::Unknown;
    link.operand = operand;
    link.axes.resize(static_cast<std::size_t>(output.dim()));
    node.links.push_back(std::move(link));
  }
}

/// The dimension of the operand in which a result's dimension is found again, -1 for none.
int same_in(const Link& link, std::size_t dim) {
  return dim < link.axes.size() && link.axes[dim].kind == Axis::Kind::Same ? link.axes[dim].from.front() : -1;
}

}  // namespace

std::optional<NodeId> PassGraph::Run::node(const at::Tensor& tensor) const {
  const auto found = std::find_if(operands.begin(), operands.end(),
                                  [&](const auto& operand) { return operand.first.is_same(tensor); });
  return found == operands.end() ? std::nullopt : std::optional(found->second);
}

// ---- labels ----

int PassGraph::label(bool samples) {
  sample_labels_.push_back(samples);
  return static_cast<int>(sample_labels_.size()) - 1;
}

int PassGraph::merged_label(const std::vector<int>& parts, const std::vector<std::int64_t>& sizes) {
  const auto known = merged_.find({parts, sizes});
  if (known != merged_.end()) return known->second;
  const int whole = label(std::any_of(parts.begin(), parts.end(), [&](int part) { return counts_samples(part); }));
  merged_.emplace(std::pair{parts, sizes}, whole);
  parts_.emplace(whole, std::pair{parts, sizes});
  return whole;
}

std::vector<int> PassGraph::split_label(int whole, const std::vector<std::int64_t>& sizes) {
  if (const auto merged = parts_.find(whole); merged != parts_.end() && merged->second.second == sizes) {
    return merged->second.first;
  }
  const auto known = split_.find({whole, sizes});
  if (known != split_.end()) return known->second;
  std::vector<int> parts;
  for (std::size_t i = 0; i < sizes.size(); ++i) parts.push_back(label(i == 0 && counts_samples(whole)));
  split_.emplace(std::pair{whole, sizes}, parts);
  merged_.emplace(std::pair{parts, sizes}, whole);
  return parts;
}

/// Dimensions of a result run in step with those of the first operand that has them. An operand whose own do not is
/// marked.
void PassGraph::label_result(Node& node) {
  node.labels.assign(node.sizes.size(), -1);
  std::set<int> taken;
  const auto take = [&](std::size_t dim, int wanted) {
    if (node.labels[dim] < 0 && taken.insert(wanted).second) node.labels[dim] = wanted;
  };
  for (const Link& link : node.links) {
    const Node& operand = nodes_[link.operand];
    for (std::size_t dim = 0; dim < link.axes.size(); ++dim) {
      const Axis& axis = link.axes[dim];
      if (axis.kind == Axis::Kind::Same) {
        take(dim, operand.labels[static_cast<std::size_t>(axis.from.front())]);
      } else if (axis.kind == Axis::Kind::Merged) {
        std::vector<int> parts;
        std::vector<std::int64_t> sizes;
        for (const int from : axis.from) {
          parts.push_back(operand.labels[static_cast<std::size_t>(from)]);
          sizes.push_back(operand.sizes[static_cast<std::size_t>(from)]);
        }
        take(dim, merged_label(parts, sizes));
      } else if (axis.kind == Axis::Kind::Part &&
                 (dim == 0 || link.axes[dim - 1].kind != Axis::Kind::Part || link.axes[dim - 1].from != axis.from)) {
        std::vector<std::int64_t> sizes;
        for (std::size_t i = dim; i < link.axes.size() && link.axes[i].from == axis.from; ++i) {
          sizes.push_back(node.sizes[i]);
        }
        const auto parts = split_label(operand.labels[static_cast<std::size_t>(axis.from.front())], sizes);
        for (std::size_t i = 0; i < parts.size(); ++i) take(dim + i, parts[i]);
      }
    }
  }
  for (std::size_t dim = 0; dim < node.labels.size(); ++dim) {
    bool samples = false;  // a mixture or a choice among samples
    for (const Link& link : node.links) {
      if (dim < link.axes.size() && link.axes[dim].kind == Axis::Kind::Mixed && link.way != Link::Way::Hidden) {
        for (const int from : link.axes[dim].from) {
          samples = samples || counts_samples(nodes_[link.operand].labels[static_cast<std::size_t>(from)]);
        }
      }
    }
    if (node.labels[dim] < 0) node.labels[dim] = label(samples);
  }
  for (Link& link : node.links) {
    for (std::size_t dim = 0; dim < link.axes.size(); ++dim) {
      const int from = same_in(link, dim);
      if (from >= 0) {
        const Node& operand = nodes_[link.operand];
        link.axes[dim].aligned = operand.labels[static_cast<std::size_t>(from)] == node.labels[dim];
      }
    }
  }
}

// ---- tensors ----

std::optional<NodeId> PassGraph::find(const at::Tensor& tensor) const {
  const auto known = known_.find(tensor.unsafeGetTensorImpl());
  if (known == known_.end() || known->second.tensor.expired()) return std::nullopt;
  const Node& node = nodes_[known->second.node];
  const bool same = known->second.version == version_of(tensor) || node.parameter;
  return same && std::ssize(node.sizes) == tensor.dim() ? std::optional(known->second.node) : std::nullopt;
}

void PassGraph::give(const at::Tensor& tensor, NodeId node) {
  known_.insert_or_assign(tensor.unsafeGetTensorImpl(),
                          Known{Weak(tensor.getIntrusivePtr()), node, version_of(tensor), ++records_});
}

NodeId PassGraph::node_of(const at::Tensor& tensor, const IsParameter& is_parameter) {
  if (const auto known = find(tensor)) return *known;
  const auto before = known_.find(tensor.unsafeGetTensorImpl());
  if (before != known_.end() && !before->second.tensor.expired()) return add_written(tensor, before->second.node);
  Node node = leaf(tensor);
  node.op = "an input";
  node.parameter = node.weight = is_parameter(tensor);
  node.data = !node.parameter;
  for (std::size_t dim = 0; dim < node.sizes.size(); ++dim) {
    const bool repeats = tensor.layout() == at::kStrided && tensor.stride(static_cast<std::int64_t>(dim)) == 0;
    node.labels.push_back(label(dim == 0 && !node.parameter && !repeats));
  }
  if (node.parameter && tensor.dim() == 1) node.nonzero = at::any(at::ne(tensor.detach(), 0));
  nodes_.push_back(std::move(node));
  give(tensor, nodes_.size() - 1);
  return nodes_.size() - 1;
}

/// A tensor that has a history in autograd which was not recorded (a custom function): what it was made of is marked.
void PassGraph::look_at_history(const at::Tensor& tensor, NodeId id) {
  if (nodes_[id].graded || !tensor.requires_grad() || tensor.is_leaf()) return;
  nodes_[id].graded = true;
  const Function& function = tensor.grad_fn();
  if (!function) return;
  std::set<const torch::autograd::Node*> seen;
  std::vector<Function> open{function};
  while (!open.empty()) {
    const auto next = open.back();
    open.pop_back();
    if (!next || !seen.insert(next.get()).second) continue;
    seen_functions_.insert(next->name());
    const auto known = graded_.find(next.get());
    if (known != graded_.end() && known->second.function.lock().get() == next.get()) {
      nodes_[known->second.node].unseen = function->name();
      continue;
    }
    for (const auto& edge : next->next_edges()) open.push_back(edge.function);
  }
}

/// What a tensor is after a write into its memory through another one.
NodeId PassGraph::add_written(const at::Tensor& tensor, NodeId before) {
  Node node = leaf(tensor);
  node.kind = Node::Kind::Sum;
  node.op = "a write into memory that tensors share";
  for (std::size_t dim = 0; dim < node.sizes.size(); ++dim) node.labels.push_back(label(dim == 0));
  node.data = nodes_[before].data;
  Link link;
  link.way = Link::Way::Unknown;
  link.operand = before;
  link.axes.resize(node.sizes.size());
  link.gradient = tensor.requires_grad();
  node.links.push_back(std::move(link));
  nodes_.push_back(std::move(node));
  give(tensor, nodes_.size() - 1);
  return nodes_.size() - 1;
}

/// True if every dimension that a node speaks of is there.
bool PassGraph::holds(const Node& node) const {
  const auto size = std::ssize(node.sizes);
  const bool factors = node.kind == Node::Kind::Product || node.kind == Node::Kind::Contraction;
  return (!factors || node.links.size() > 1) &&
         std::all_of(node.links.begin(), node.links.end(), [&](const Link& link) {
           const auto in = std::ssize(nodes_[link.operand].sizes);
           const auto holds_axis = [&](const Axis& axis) {
             const bool one =
                 axis.kind != Axis::Kind::Absent && axis.kind != Axis::Kind::Mixed && axis.kind != Axis::Kind::Merged;
             return (!one || axis.from.size() == 1) && (axis.kind != Axis::Kind::Absent || axis.from.empty()) &&
                    std::all_of(axis.from.begin(), axis.from.end(), [&](int from) { return 0 <= from && from < in; });
           };
           return std::ssize(link.axes) == size && std::all_of(link.axes.begin(), link.axes.end(), holds_axis) &&
                  link.lacking_along < std::min(size, in) && link.chosen < in && link.sums_to_zero < in;
         });
}

void PassGraph::give_tokens(NodeId lookup, const std::vector<at::Tensor>& inputs) {
  Node& node = nodes_[lookup];
  if (node.table > 0 && !node.tokens.defined() && !inputs.empty()) node.tokens = inputs.front();
}

void PassGraph::give_data(NodeId data, const at::Tensor& tensor, std::int64_t features) {
  Node& node = nodes_[data];
  if (!node.links.empty() || node.parameter || !tensor.is_floating_point() || tensor.numel() == 0) return;
  node.columns = tensor;
  node.features = static_cast<int>(features);
}

void PassGraph::custom_function_ran(std::string_view name) { custom_functions_.emplace(name); }

std::string PassGraph::not_known() const {
  if (!failed_.empty()) return failed_;
  return nodes_.size() < kMostNodes ? std::string() : "a pass of too many operators";
}

std::string PassGraph::unseen_function() const {
  for (const std::string& name : custom_functions_) {
    if (seen_functions_.count(name) == 0) return name;
  }
  return {};
}

void PassGraph::forget_tensors() {
  known_.clear();
  graded_.clear();
}

// ---- operators ----

std::unique_ptr<PassGraph::Run> PassGraph::starts(std::string_view name, Arguments args, bool grad_mode, bool inside,
                                                  const IsParameter& is_parameter) {
  // Inside a kernel with a derivative of its own: what it makes of buffers is not all told.
  const bool kernel = inside && c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradOther);
  if (kernel || nodes_.size() >= kMostNodes) return {};
  bool wanted = grad_mode;
  for_each_tensor(args, [&](const at::Tensor& tensor) { wanted = wanted || find(tensor).has_value(); });
  const bool in_place = is_in_place(name);
  const at::Tensor first = tensor_at(args, 0);
  // An update of a parameter leaves it a parameter.
  if (!wanted || (!grad_mode && in_place && first.defined() && first.requires_grad() && first.is_leaf())) return {};
  auto run = std::make_unique<Run>();
  run->full_name = name;
  run->name = bare_name(run->full_name);
  run->in_place = in_place;
  run->known = is_described(run->name);
  run->grad_mode = grad_mode;
  for_each_tensor(args, [&](const at::Tensor& tensor) {
    const NodeId node = node_of(tensor, is_parameter);
    if (grad_mode) look_at_history(tensor, node);
    run->operands.emplace_back(tensor, node);
  });
  run->arguments.assign(args.begin(), args.end());
  run->begun = records_;
  if (run->name == "ones_like" && first.defined() && first.numel() == 1 && first.requires_grad()) {
    nodes_[*run->node(first)].root = true;  // what a backward pass from a scalar begins with
  }
  return run;
}

void PassGraph::ends(const Run& run, const std::vector<c10::IValue>& outputs) {
  std::size_t place = 0;
  for_each_tensor(Arguments(outputs.data(), outputs.size()), [&](const at::Tensor& output) {
    const std::size_t own = place++;
    const bool operand = std::any_of(run.operands.begin(), run.operands.end(),
                                     [&](const auto& each) { return each.first.is_same(output); });
    if (operand && !run.in_place) return;  // given back as it came
    const auto known = known_.find(output.unsafeGetTensorImpl());
    const bool within = known != known_.end() && !known->second.tensor.expired() && known->second.record > run.begun;
    if (!run.known && within) return;  // recorded within it
    Node node = leaf(output);
    node.op = run.full_name;
    node.data = std::any_of(run.operands.begin(), run.operands.end(),
                            [&](const auto& each) { return nodes_[each.second].data; });
    node.weight = !run.operands.empty() && std::all_of(run.operands.begin(), run.operands.end(),
                                                       [&](const auto& each) { return nodes_[each.second].weight; });
    const bool described = describe(*this, run, output, own, node);
    if (!described || !holds(node)) {
      node.links.clear();
      if (!run.operands.empty()) depend_unknown(run, output, node);
    }
    for (Link& link : node.links) {
      for (std::size_t dim = 0; dim < link.axes.size(); ++dim) {  // one that is the same all along a dimension
        Axis& axis = link.axes[dim];
        const bool same = axis.kind == Axis::Kind::Same;
        if (same && nodes_[link.operand].sizes[static_cast<std::size_t>(axis.from[0])] < node.sizes[dim]) axis = {};
      }
      const auto from = std::find_if(run.operands.begin(), run.operands.end(),
                                     [&](const auto& each) { return each.second == link.operand; });
      const bool wants = from == run.operands.end() || from->first.requires_grad();
      link.gradient = run.grad_mode && output.requires_grad() && wants && run.name != "detach";
    }
    label_result(node);
    node.graded = run.grad_mode && output.requires_grad();
    nodes_.push_back(std::move(node));
    const NodeId id = nodes_.size() - 1;
    give(output, id);
    if (nodes_[id].graded) {
      if (const auto& function = output.grad_fn())
        graded_.insert_or_assign(function.get(), Graded{weak(Function(function)), id});
    }
  });
}

}  // namespace dds::hooks
