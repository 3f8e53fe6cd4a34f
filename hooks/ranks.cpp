#include "hooks/ranks.hpp"

#include <algorithm>

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

// ---- sizes ----

std::int64_t Ranks::size(NodeId id, int dim) const {
  const auto at = static_cast<std::size_t>(dim);
  return any_samples_ && graph_.counts_samples(node(id).labels[at]) ? kMany : node(id).sizes[at];
}

/// How many different slices a tensor has along a dimension.
std::int64_t Ranks::distinct(NodeId id, int dim) {
  const auto [place, fresh] = distinct_.try_emplace({id, dim}, 0);
  if (!fresh) return place->second;
  const std::int64_t all = size(id, dim);
  std::int64_t count = node(id).links.empty() ? all : 1;
  for (const Link& link : node(id).links) {
    const Axis& axis = link.axes[static_cast<std::size_t>(dim)];
    if (link.way == Way::Unknown || axis.kind == Kind::Mixed || (link.way == Way::Other && axis.kind == Kind::Absent)) {
      count = all;
    } else {
      for (const int from : axis.from) count = std::min(all, times(count, distinct(link.operand, from)));
    }
  }
  return distinct_[{id, dim}] = count;
}

std::int64_t Ranks::rows(const Stack& stack, const std::vector<int>& dims, bool gradients) {
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

/// Along a dimension: how many slices of a gradient are not zero or, of these, differ.
std::int64_t Ranks::gradient_slices(NodeId id, int dim, bool distinct) {
  const auto [place, fresh] = slices_.try_emplace({id, dim, distinct}, 0);
  if (!fresh) return place->second;
  const std::int64_t all = size(id, dim);
  std::int64_t filled = 0, different = 1;
  for (const Consumer& consumer : consumers_[id]) {
    filled = std::min(all, filled + slices_of(consumer, id, dim, false));
    if (distinct) different = std::min(all, times(different, slices_of(consumer, id, dim, true)));
  }
  if (consumers_[id].empty() || !node(id).unseen.empty()) filled = different = all;
  return slices_[{id, dim, distinct}] = distinct ? std::min(filled, different) : filled;
}

std::int64_t Ranks::slices_of(const Consumer& consumer, NodeId id, int dim, bool distinct) {
  const Node& result = node(consumer.node);
  const Link& link = result.links[consumer.link];
  const std::int64_t all = size(id, dim);
  if (link.chosen == dim) return 1;
  if (link.way == Way::Unknown || link.way == Way::Other || link.way == Way::Hidden || link.drops_constants) return all;
  const std::vector<int> results = results_of(link, dim);
  if (results.empty()) return link.way == Way::Linear && distinct && result.kind == Node::Kind::Sum ? 1 : all;
  const auto first = static_cast<std::size_t>(results.front());
  const Axis& axis = link.axes[first];
  if (axis.kind == Kind::Mixed) return axis.used < 0 ? all : std::min(all, axis.used);
  if (link.lacking_along == results.front()) return all;
  const bool factor = result.kind != Node::Kind::Sum && consumer.link < 2 &&
                      result.links[1 - consumer.link].axes[first].kind != Kind::Absent;
  const bool scaled = distinct && (link.way == Way::Entries || factor);
  std::int64_t count = 1;
  for (const int to : results) count = times(count, gradient_slices(consumer.node, to, distinct && !scaled));
  return std::min(all, count);
}

/// True if a tensor varies along this dimension alone.
bool Ranks::is_vector_along(NodeId id, int dim) { return rows({id}, {dim}, false) == 1; }

// ---- stacks ----

Ranks::Stack Ranks::operands(const Stack& stack, std::size_t link) const {
  Stack operands;
  for (const NodeId id : stack) operands.push_back(node(id).links[link].operand);
  return operands;
}

bool Ranks::alike(const Link& a, const Link& b) const {
  const auto same_axis = [](const Axis& x, const Axis& y) { return x.kind == y.kind && x.from == y.from; };
  const bool weights = node(a.operand).weight || node(b.operand).weight;
  return a.way == b.way && a.taps == b.taps && a.groups == b.groups && (!weights || are_one({a.operand, b.operand})) &&
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

Rank Ranks::separate(const Stack& stack, int dim, bool of_gradients) {
  Rank sum = Rank::exactly(0);
  for (const NodeId id : stack) {
    sum = sum + flow_.rank((of_gradients ? gradients({id}, dim) : values({id}, dim)).vertex);
  }
  return sum;
}

}  // namespace dds::hooks
