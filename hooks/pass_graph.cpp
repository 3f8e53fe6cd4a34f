#include "hooks/pass_graph.hpp"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "hooks/memory.hpp"
#include "hooks/operators.hpp"
#include "hooks/rule.hpp"

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
void depend_unknown(const PassGraph::Run& run, const at::Tensor& output, bool wanted, Node& node) {
  node.kind = Node::Kind::Sum;
  for (std::size_t i = 0; i < run.nodes.size(); ++i) {
    Link link;
    link.way = node.weight ? Link::Way::Other : Link::Way::Unknown;
    link.operand = run.nodes[i];
    link.gradient = wanted && run.operands[i].requires_grad();
    link.axes.resize(static_cast<std::size_t>(output.dim()));
    node.links.push_back(std::move(link));
  }
}

/// The dimension of the operand in which a result's dimension is found again, -1 for none.
int same_in(const Link& link, std::size_t dim) {
  return dim < link.axes.size() && link.axes[dim].kind == DimSource::Kind::Same ? link.axes[dim].from.front() : -1;
}

}  // namespace

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
      const DimSource& axis = link.axes[dim];
      if (axis.kind == DimSource::Kind::Same) {
        take(dim, operand.labels[static_cast<std::size_t>(axis.from.front())]);
      } else if (axis.kind == DimSource::Kind::Merged) {
        std::vector<int> parts;
        std::vector<std::int64_t> sizes;
        for (const int from : axis.from) {
          parts.push_back(operand.labels[static_cast<std::size_t>(from)]);
          sizes.push_back(operand.sizes[static_cast<std::size_t>(from)]);
        }
        take(dim, merged_label(parts, sizes));
      } else if (axis.kind == DimSource::Kind::Part && (dim == 0 || link.axes[dim - 1].kind != DimSource::Kind::Part ||
                                                        link.axes[dim - 1].from != axis.from)) {
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
      if (dim < link.axes.size() && link.axes[dim].kind == DimSource::Kind::Mixed && link.way != Link::Way::Hidden) {
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
  if (node.parameter && tensor.dim() == 1) node.nonzero = any_nonzero(tensor);
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
           const auto holds_axis = [&](const DimSource& axis) {
             const bool one = axis.kind != DimSource::Kind::Absent && axis.kind != DimSource::Kind::Mixed &&
                              axis.kind != DimSource::Kind::Merged;
             return (!one || axis.from.size() == 1) && (axis.kind != DimSource::Kind::Absent || axis.from.empty()) &&
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

void PassGraph::backward_node_ran(std::string_view name, std::int64_t sequence) {
  if (name.ends_with("GraphRoot")) own_gradients_ = own_gradients_ || scalars_ < 2;  // stands before several tensors
  scalars_ = 0;
  ++runs_[sequence];
}

std::size_t PassGraph::runs(NodeId id) const {
  const auto known = runs_.find(nodes_[id].sequence);
  return known == runs_.end() ? 0 : known->second;
}

std::string PassGraph::gradients_not_known() const {
  if (own_gradients_) return kOwnGradient;
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
    run->operands.push_back(tensor);
    run->nodes.push_back(node);
  });
  run->arguments.assign(args.begin(), args.end());
  run->begun = records_;
  if (run->name == "ones_like" && first.defined() && first.numel() == 1 && first.requires_grad()) {
    ++scalars_;
    nodes_[run->nodes.front()].root = true;  // what a backward pass from a scalar begins with
  }
  return run;
}

void PassGraph::ends(const Run& run, const std::vector<c10::IValue>& outputs) {
  std::size_t place = 0;
  for_each_tensor(Arguments(outputs.data(), outputs.size()), [&](const at::Tensor& output) {
    const std::size_t own = place++;
    const bool operand = std::any_of(run.operands.begin(), run.operands.end(),
                                     [&](const at::Tensor& each) { return each.is_same(output); });
    if (operand && !run.in_place) return;  // given back as it came
    const auto known = known_.find(output.unsafeGetTensorImpl());
    const bool within = known != known_.end() && !known->second.tensor.expired() && known->second.record > run.begun;
    if (!run.known && within) return;  // recorded within it
    Node node = leaf(output);
    understand(run, output, own, node);
    label_result(node);
    node.graded = run.grad_mode && output.requires_grad();
    nodes_.push_back(std::move(node));
    const NodeId id = nodes_.size() - 1;
    give(output, id);
    if (nodes_[id].graded) {
      if (const auto& function = output.grad_fn()) {
        nodes_[id].sequence = static_cast<std::int64_t>(function->sequence_nr());
        graded_.insert_or_assign(function.get(), Graded{weak(Function(function)), id});
      }
    }
  });
}

/// What the operator made of its operands.
void PassGraph::understand(const Run& run, const at::Tensor& output, std::size_t place, Node& node) const {
  const auto all = [&](const auto& is) { return std::all_of(run.nodes.begin(), run.nodes.end(), is); };
  node.op = run.full_name;
  node.data = !all([&](NodeId id) { return !nodes_[id].data; });
  node.weight = !run.nodes.empty() && all([&](NodeId id) { return nodes_[id].weight; });
  const bool described = describe({run.name, run.args(), run.operands, output, place, this, &run.nodes}, node);
  std::erase_if(node.links, [&](const Link& link) { return !described || link.way == Link::Way::Counts; });
  node.events.clear();
  const bool wanted = run.grad_mode && output.requires_grad() && run.name != "detach";
  for (Link& link : node.links) {
    const at::Tensor& operand = run.operands[link.operand];
    link.operand = run.nodes[link.operand];
    link.gradient = wanted && operand.requires_grad();
    const Node& from = nodes_[link.operand];
    for (std::size_t dim = 0; dim < std::min(link.axes.size(), node.sizes.size()); ++dim) {
      DimSource& axis = link.axes[dim];  // along a dimension that only repeats, an operand does not vary
      if (axis.kind != DimSource::Kind::Same || axis.from[0] < 0 || axis.from[0] >= operand.dim()) continue;
      const std::int64_t own = from.sizes[static_cast<std::size_t>(axis.from[0])];
      if (!varies(operand, axis.from[0]) || own < node.sizes[dim]) axis = {};
    }
  }
  if (!described || !holds(node)) {
    node.links.clear();
    depend_unknown(run, output, wanted, node);
  }
  if (node.links.empty()) node.kind = Meaning::Kind::Leaf;
}

}  // namespace dds::hooks
