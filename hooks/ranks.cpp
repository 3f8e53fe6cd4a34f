#include "hooks/ranks.hpp"

#include <algorithm>
#include <set>

namespace dds::hooks {

using Kind = Axis::Kind;
using Way = Link::Way;

std::vector<int> results_of(const Link& link, int dim) {
  std::vector<int> results;
  for (std::size_t i = 0; i < link.axes.size(); ++i) {
    const std::vector<int>& from = link.axes[i].from;
    if (std::find(from.begin(), from.end(), dim) != from.end()) results.push_back(static_cast<int>(i));
  }
  return results;
}

Rank mapped_rank(const Rank& rank, const Link& link, std::int64_t in, std::int64_t out) {
  if (link.groups <= 1) return rank.scaled(link.taps);
  const Rank group = rank.within(in / link.groups).scaled(link.taps).within(out / link.groups);
  return smaller(group.scaled(link.groups), rank.scaled(link.taps));
}

bool is_one_matrix(const Link& link, int dim) {
  for (int to = 0; to < static_cast<int>(link.axes.size()); ++to) {
    if (to != dim && link.axes[static_cast<std::size_t>(to)].kind == Kind::Same) return false;
  }
  return true;
}

Rank unknown_rank(const Rank& full, const std::string& op) {
  return {full.most, 0, full.most > 0 ? op : std::string()};
}

Rank between(std::int64_t least, const Rank& most, const std::string& op) {
  if (least >= most.most) return Rank::exactly(most.most);
  return {most.most, least, most.unknown.empty() ? op : most.unknown};
}

// ---- sizes ----

std::int64_t Ranks::size(NodeId id, int dim) const {
  const auto at = static_cast<std::size_t>(dim);
  return any_samples_ && graph_.counts_samples(node(id).labels[at]) ? kMany : node(id).sizes[at];
}

// Operands stand before their results, and consumers behind: each count finds those that it needs.
Ranks::Ranks(const PassGraph& graph, const std::vector<std::vector<Consumer>>& consumers, bool any_samples)
    : graph_(graph), consumers_(consumers), any_samples_(any_samples), distinct_(graph.size()), slices_(graph.size()) {
  for (NodeId id = 0; id < graph.size(); ++id) {
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      distinct_[id].push_back(count_distinct(id, dim));
    }
  }
  for (NodeId id = graph.size(); id-- > 0;) {
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      for (const bool distinct : {false, true}) slices_[id].push_back(count_gradient_slices(id, dim, distinct));
    }
  }
}

/// How many different slices a tensor has along a dimension.
std::int64_t Ranks::count_distinct(NodeId id, int dim) const {
  const std::int64_t all = size(id, dim);
  std::int64_t count = node(id).links.empty() ? all : 1, joined = 0;
  std::set<NodeId> parts;
  for (const Link& link : node(id).links) {
    const Axis& axis = link.axes[static_cast<std::size_t>(dim)];
    const bool any = link.way == Way::Unknown || axis.kind == Kind::Mixed ||
                     (link.way == Way::Other && axis.kind == Kind::Absent);
    if (any) return all;
    if (axis.kind == Kind::Joined) {
      if (parts.insert(link.operand).second) joined += std::min(all, distinct(link.operand, axis.from[0]));
      continue;
    }
    for (const int from : axis.from) count = std::min(all, times(count, distinct(link.operand, from)));
    if (axis.used >= 0) count = std::min(count, axis.used);
  }
  return std::min(all, parts.empty() ? count : times(count, joined));
}

std::int64_t Ranks::rows(const Stack& stack, const std::vector<int>& dims, bool gradients) const {
  std::int64_t sum = 0;
  for (const NodeId id : stack) {
    std::int64_t count = 1;
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      if (std::find(dims.begin(), dims.end(), dim) != dims.end()) continue;
      count = times(count, gradients ? gradient_slices(id, dim, true) : distinct(id, dim));
    }
    sum = std::min(kMany, sum + count);
  }
  return sum;
}

std::int64_t Ranks::count_gradient_slices(NodeId id, int dim, bool distinct) const {
  const std::int64_t all = size(id, dim);
  if (consumers_[id].empty() || !node(id).unseen.empty()) return all;
  std::int64_t filled = 0, different = 1;
  for (const Consumer& consumer : consumers_[id]) {
    filled = std::min(all, filled + slices_of(consumer, id, dim, false));
    if (distinct) different = std::min(all, times(different, slices_of(consumer, id, dim, true)));
  }
  return distinct ? std::min(filled, different) : filled;
}

std::int64_t Ranks::slices_of(const Consumer& consumer, NodeId id, int dim, bool distinct) const {
  const Node& result = node(consumer.node);
  const Link& link = result.links[consumer.link];
  const std::int64_t all = size(id, dim);
  if (link.chosen == dim) return 1;
  if (link.way == Way::Unknown || link.way == Way::Other || link.way == Way::Hidden || link.way == Way::Clips ||
      link.drops_constants || link.coarser) {
    return all;
  }
  const std::vector<int> results = results_of(link, dim);
  if (results.empty()) return link.way == Way::Linear && distinct && result.kind == Node::Kind::Sum ? 1 : all;
  const auto first = static_cast<std::size_t>(results.front());
  const Axis& axis = link.axes[first];
  if (axis.kind == Kind::Chosen) return std::min(all, axis.used);
  if (axis.kind == Kind::Joined) return std::min(all, gradient_slices(consumer.node, results.front(), distinct));
  if (axis.mixes()) return all;
  if (link.lacking_along == results.front()) return all;
  const bool factor = result.kind != Node::Kind::Sum && consumer.link < 2 &&
                      result.links[1 - consumer.link].axes[first].kind != Kind::Absent;
  const bool scaled = distinct && (link.way == Way::Entries || factor);
  std::int64_t count = 1;
  for (const int to : results) count = times(count, gradient_slices(consumer.node, to, distinct && !scaled));
  return std::min(all, count);
}

/// True if a tensor varies along this dimension alone.
bool Ranks::is_vector_along(NodeId id, int dim) const { return rows({id}, {dim}, false) == 1; }

// ---- stacks ----

Ranks::Stack Ranks::operands(const Stack& stack, std::size_t link) const {
  Stack operands;
  for (const NodeId id : stack) operands.push_back(node(id).links[link].operand);
  return operands;
}

bool Ranks::alike(const Link& a, const Link& b) const {
  const auto same_axis = [](const Axis& x, const Axis& y) { return x.kind == y.kind && x.from == y.from; };
  const bool weights = node(a.operand).weight || node(b.operand).weight;
  return a.way == b.way && a.finer == b.finer && a.taps == b.taps && a.groups == b.groups && (!weights || are_one({a.operand, b.operand})) &&
         std::equal(a.axes.begin(), a.axes.end(), b.axes.begin(), b.axes.end(), same_axis);
}

/// True if they are one tensor, or made of the same parameters in the same way.
bool Ranks::are_one(const Stack& stack) const {
  const auto same = [&](NodeId id) { return id == stack[0]; };
  const auto made = [&](NodeId id) { return node(id).weight && !node(id).links.empty(); };
  return std::all_of(stack.begin(), stack.end(), same) ||
         (std::all_of(stack.begin(), stack.end(), made) && alike(stack));
}

/// True if the tensors came of the same operators with the same weights, so that they are one with more rows.
bool Ranks::alike(const Stack& stack) const {
  const Node& first = node(stack.front());
  return std::all_of(stack.begin(), stack.end(), [&](NodeId id) {
    const Node& other = node(id);
    return other.op == first.op && other.kind == first.kind && other.sizes.size() == first.sizes.size() &&
           std::equal(first.links.begin(), first.links.end(), other.links.begin(), other.links.end(),
                      [&](const Link& a, const Link& b) { return alike(a, b); });
  });
}

// ---- sums of what has one origin ----

namespace {

/// A tensor on a path of maps with fixed coefficients. `mixed`: its entries along `dim` were mixed with each other.
struct Step {
  NodeId node;
  int dim;
  bool mixed;
};

bool is_fixed(const Node& result, const Link& link) {
  return result.kind == Node::Kind::Sum && link.way == Way::Linear && result.table == 0 &&
         result.op.find("conv") == std::string::npos;
}

bool mixes(const Axis& axis) {
  return axis.kind == Kind::Mixed || axis.kind == Kind::Merged || axis.kind == Kind::Part;
}

/// True if paths that begin at different places lead to one node, and entries were mixed on one of them, or `harmful`
/// is true of that node. `onward(step, go)` calls go() for the steps behind one; a step is nearer the larger its key.
template <class Key, class Onward, class Harmful>
bool paths_meet(const std::vector<Step>& beginnings, const Key& key, const Onward& onward, const Harmful& harmful) {
  std::vector<std::map<NodeId, Step>> paths;
  for (const Step& step : beginnings) paths.push_back({{key(step.node), step}});
  for (std::size_t steps = 0; steps < 1000; ++steps) {
    const auto empty = [](const auto& path) { return path.empty(); };
    std::erase_if(paths, empty);
    if (paths.size() < 2) return false;
    NodeId nearest = 0;
    for (const auto& path : paths) nearest = std::max(nearest, path.rbegin()->first);
    std::size_t met = 0;
    bool mixed = false;
    NodeId at = 0;
    for (auto& path : paths) {
      const auto here = path.find(nearest);
      if (here == path.end()) continue;
      const Step step = here->second;
      ++met;
      mixed = mixed || step.mixed;
      at = step.node;
      path.erase(here);
      onward(step, [&](const Step& next) {
        const auto [known, fresh] = path.try_emplace(key(next.node), next);
        if (!fresh) known->second.mixed = known->second.mixed || next.mixed;
      });
    }
    if (met > 1 && (mixed || harmful(at))) return true;
    if (met > 1) return false;
  }
  return true;
}

}  // namespace

/// True if the terms of a sum have one origin, so that they may cancel along a direction: x + flip(x), x - x.mean().
bool Ranks::terms_may_cancel(NodeId id, int dim) const {
  if (node(id).kind != Node::Kind::Sum) return false;
  const auto onward = [&](const Step& step, const auto& go) {
    for (const Link& link : node(step.node).links) {
      const Axis& axis = link.axes[static_cast<std::size_t>(step.dim)];
      if (!is_fixed(node(step.node), link) || axis.from.size() != 1) continue;
      go(Step{link.operand, axis.from[0], step.mixed || mixes(axis)});
    }
  };
  std::vector<Step> terms;
  for (const Link& link : node(id).links) {
    const Axis& axis = link.axes[static_cast<std::size_t>(dim)];
    if (link.way != Way::Linear || axis.from.size() != 1 || axis.kind == Kind::Joined) continue;
    terms.push_back({link.operand, axis.from[0], mixes(axis)});
  }
  return paths_meet(terms, [](NodeId node) { return node; }, onward, [&](NodeId) { return node(id).difference; });
}

/// As terms_may_cancel(), of the gradients that come back from several consumers.
bool Ranks::gradients_may_cancel(NodeId id, int dim) const {
  const auto go_by = [&](const Consumer& by, const Step& step, const auto& go) {
    const Link& link = node(by.node).links[by.link];
    const std::vector<int> to = results_of(link, step.dim);
    if (!is_fixed(node(by.node), link) || to.size() != 1) return;
    go(Step{by.node, to[0], step.mixed || mixes(link.axes[static_cast<std::size_t>(to[0])])});
  };
  std::vector<Step> terms;
  for (const Consumer& by : consumers_[id]) {
    go_by(by, {id, dim, false}, [&](const Step& step) { terms.push_back(step); });
  }
  const auto onward = [&](const Step& step, const auto& go) {
    for (const Consumer& by : consumers_[step.node]) go_by(by, step, go);
  };
  return paths_meet(
      terms, [&](NodeId node) { return graph_.size() - node; }, onward, [&](NodeId at) { return node(at).difference; });
}

Rank Ranks::separate(const Stack& stack, int dim, bool of_gradients) {
  Rank sum = Rank::exactly(0);
  for (const NodeId id : stack) {
    sum = sum + flow_.rank((of_gradients ? gradients({id}, dim) : values({id}, dim)).vertex);
  }
  return sum;
}

}  // namespace dds::hooks
