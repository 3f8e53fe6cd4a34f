// Ranks of gradients, which come back from those who take a tensor.
#include <algorithm>

#include "hooks/ranks.hpp"

namespace dds::hooks {

using Kind = DimSource::Kind;
using Way = Link::Way;

Ranks::Space Ranks::gradients(Stack stack, int dim) {
  std::sort(stack.begin(), stack.end());
  stack.erase(std::unique(stack.begin(), stack.end()), stack.end());
  if (const auto known = known_space(stack, dim, true)) return *known;
  Slices columns = slices(stack.front(), dim);  // outside of which it is zero
  for (const NodeId id : stack) {
    const Slices& one = slices(id, dim);
    columns.gap = columns.gap || one.gap || one.begin != columns.begin || one.end != columns.end;
    columns.begin = std::min(columns.begin, one.begin);
    columns.end = std::max(columns.end, one.end);
  }
  Rank full = Rank::exactly(std::min(columns.count(), rows(stack, {dim}, true)));
  const bool repeats =
      std::all_of(stack.begin(), stack.end(), [&](NodeId id) { return slices(id, dim).different == 1; });
  if (stack.size() == 1 || repeats) full = full.within(columns.different);
  if (columns.gap) full = unknown_rank(full, node(stack.front()).op);
  const Vertex into = flow_.add(full);
  const Deeper deeper(depth_);
  if (deeper.too_deep()) {
    flow_.connect(flow_.add_source(unknown_rank(full, kLongChain)), into);
    return know(stack, dim, true, {into, false});
  }
  const auto& first = consumers_[stack.front()];
  const bool together = std::all_of(stack.begin(), stack.end(), [&](NodeId id) {
    const auto& own = consumers_[id];
    return own.size() == first.size() &&
           std::equal(own.begin(), own.end(), first.begin(), [&](const Consumer& a, const Consumer& b) {
             return alike({a.node, b.node}) && alike(node(a.node).links[a.link], node(b.node).links[b.link]) &&
                    (a.link == b.link || node(a.node).kind == Node::Kind::Sum);
           });
  });
  bool sums_to_zero = false;
  if (!together) {
    flow_.connect(flow_.add_source(separate(stack, dim, true)), into);
  } else {
    sums_to_zero = !first.empty();
    for (std::size_t i = 0; i < first.size(); ++i) {
      Stack results;
      for (const NodeId id : stack) results.push_back(consumers_[id][i].node);
      if (!back(stack, results, first[i], dim, into, full)) sums_to_zero = false;
    }
    for (const NodeId id : stack) {
      if (!node(id).unseen.empty()) flow_.connect(flow_.add_source(unknown_rank(full, node(id).unseen)), into);
      if (!node(id).unseen.empty()) sums_to_zero = false;
    }
    if (first.empty()) flow_.connect(flow_.add_source(full), into);
    Rank limit = sums_to_zero ? full.within(std::max<std::int64_t>(0, size(stack.front(), dim) - 1)) : full;
    if (gradients_may_cancel(stack.front(), dim)) limit = unknown_rank(limit, node(stack.front()).op);
    flow_.limit(into, limit);
    if (stack.size() == 1) gradients_within_rows(stack.front(), dim, into, limit);
  }
  return know(stack, dim, true, {into, sums_to_zero});
}

/// The rows of a gradient lie in the space of those that come back, whatever was done to the order of these.
void Ranks::gradients_within_rows(NodeId id, int dim, Vertex vertex, const Rank& full) {
  if (consumers_[id].size() < 2 || !node(id).unseen.empty()) return;
  Stack bases;
  int along = -1;
  for (Consumer by : consumers_[id]) {
    int at = dim;
    while (true) {
      const Node& result = node(by.node);
      const Link& link = result.links[by.link];
      const std::vector<int> to = results_of(link, at);
      const bool factor = result.kind != Node::Kind::Sum && by.link < 2;
      if (factor || link.way != Way::Linear || to.size() != 1 || link.taps != 1 || link.scaled || link.coarser ||
          link.axes[static_cast<std::size_t>(to[0])].kind != Kind::Same) {
        return;
      }
      at = to[0];
      if (consumers_[by.node].size() != 1 || result.links.size() != 1 || !result.unseen.empty()) break;
      const Consumer next = consumers_[by.node][0];
      const Link& further = node(next.node).links[next.link];
      const std::vector<int> there = results_of(further, at);
      const bool plain = node(next.node).kind == Node::Kind::Sum && further.way == Way::Linear && there.size() == 1 &&
                         further.axes[static_cast<std::size_t>(there[0])].kind == Kind::Same && further.taps == 1 &&
                         !further.scaled && !further.coarser;
      if (!plain) break;
      by = next;
    }
    if (along >= 0 && along != at) return;
    along = at;
    bases.push_back(by.node);
  }
  std::sort(bases.begin(), bases.end());
  bases.erase(std::unique(bases.begin(), bases.end()), bases.end());
  if (bases.size() == 1) flow_.limit(vertex, smaller(full, flow_.rank(gradients(bases, along).vertex)));
}

/// True if a tensor goes, as it is, into a norm over all rows.
bool Ranks::sums_to_zero_over_rows(NodeId id) const {
  for (int steps = 0; steps < 16; ++steps) {
    for (const Consumer& by : consumers_[id]) {
      if (node(by.node).links[by.link].drops_constants) return true;
    }
    if (consumers_[id].size() != 1) return false;
    id = consumers_[id].front().node;
  }
  return true;
}

/// Of a dimension that was split, or merged with others.
Rank Ranks::back_through_merging(const Stack& stack, const Stack& results, const Consumer& by, int dim,
                                 const Rank& full) {
  const Node& result = node(by.node);
  const Link& link = result.links[by.link];
  const std::vector<int> to = results_of(link, dim);
  const DimSource& axis = link.axes[static_cast<std::size_t>(to[0])];
  if (axis.kind == Kind::Mixed) return unknown_rank(full, result.op);
  std::int64_t others = 1, least = 0;
  for (const int other : axis.from) others = other == dim ? others : times(others, size(stack.front(), other));
  Rank all = Rank::exactly(others);
  for (const int each : to) all = all * flow_.rank(gradients(results, each).vertex);
  for (const int each : to) {
    std::int64_t beside = others;
    for (const int other : to) beside = other == each ? beside : times(beside, size(by.node, other));
    const Rank one = flow_.rank(gradients(results, each).vertex);
    least = std::max(least, (one.least + beside - 1) / std::max<std::int64_t>(1, beside));
  }
  if (axis.kind == Kind::Part && !splits_what_is_merged(by.node)) least = std::max(least, all.least);
  return between(std::min(least, full.most), all.within(full.most), result.op);
}

/// What comes back through one consumer. True if it sums to zero along the dimension.
bool Ranks::back(const Stack& stack, const Stack& results, const Consumer& by, int dim, Vertex into, const Rank& full) {
  const Node& result = node(by.node);
  const Link& link = result.links[by.link];
  const auto source = [&](const Rank& rank) { flow_.connect(flow_.add_source(rank.within(full.most)), into); };
  if (link.way == Way::Unknown || link.way == Way::Clips || link.coarser || link.masked) {
    return source(unknown_rank(full, result.op)), false;
  }
  const bool zero = link.sums_to_zero == dim;
  const std::int64_t wide =
      size(stack.front(), dim) - std::max<std::int64_t>(zero ? 1 : 0, link.lacking_along == dim ? link.lacking : 0);
  const std::vector<int> to = results_of(link, dim);
  if (link.way == Way::Hidden) {  // a query meets keys, a key queries
    const bool meets = result.op.find("attention") != std::string::npos && by.link > 0 &&
                       dim == static_cast<int>(node(stack[0]).sizes.size()) - 1;
    if (!meets) return source(full), false;
    return source(flow_.rank(values(operands(results, 3 - by.link), dim).vertex, by.link == 2)), false;
  }
  if (link.way == Way::Other) {
    const bool some = zero && link.counted.defined();
    return source(full.within(some ? std::min(wide, link.counted.item<std::int64_t>()) : wide)), zero;
  }
  if (result.kind != Node::Kind::Sum && by.link < 2) return back_through_factor(stack, results, by, dim, into, full);
  if (to.empty()) {
    const bool one = link.way == Way::Linear && consumers_[stack.front()].size() == 1;
    return source(one ? Rank::exactly(1) : unknown_rank(Rank::exactly(1), result.op)), false;
  }
  const DimSource& axis = link.axes[static_cast<std::size_t>(to[0])];
  const Space incoming = gradients(results, to[0]);
  if (link.way == Way::Entries) {
    const bool known = std::all_of(results.begin(), results.end(), [&](NodeId id) { return slices(id, to[0]).known; });
    if (axis.kind != Kind::Same || !known) return source(unknown_rank(full, result.op)), false;
    const bool narrow = link.homogeneous && flow_.rank(values(stack, dim).vertex).most <= 1;
    return source(narrow ? between(0, flow_.rank(incoming.vertex).scaled(2), result.op) : full), false;
  }
  if (link.way == Way::Rescaled && !is_normed(link, result, to[0])) {
    return source(link.drops_constants ? unknown_rank(full, result.op) : full), false;
  }
  if (link.way == Way::Rescaled) {
    const Rank own = flow_.rank(values(stack, dim).vertex, /*constant=*/!link.drops_constants);
    const bool mask = !link.keeps_constants || result.op == "aten::sub";
    const Rank both = mask ? flow_.rank(incoming.vertex) : flow_.rank(incoming.vertex) + own;
    const std::int64_t rows_left = rows(stack, {dim}, true) - (link.drops_constants ? 1 : 0);
    return source(both.within(std::min(wide, rows_left))), zero;
  }
  if (axis.kind == Kind::Part || axis.kind == Kind::Merged || axis.from.size() > 1) {
    return source(back_through_merging(stack, results, by, dim, full)), false;
  }
  if (steps(link, to[0], by.node, true) && link.taps == 1 && link.groups == 1) {
    flow_.connect(incoming.vertex, into);
  } else {
    const Rank mapped = mapped_rank(flow_.rank(incoming.vertex), link, size(by.node, to[0]), size(stack.front(), dim));
    // Where rows are summed up that sum to zero, the last of the sums follows from the others.
    source(sums_to_zero_over_rows(by.node) ? between(0, mapped, result.op) : mapped);
  }
  return axis.kind == Kind::Same && !link.scaled && incoming.sums_to_zero;
}

/// Through the first two operands of a product.
bool Ranks::back_through_factor(const Stack& stack, const Stack& results, const Consumer& by, int dim, Vertex into,
                                const Rank& full) {
  const Node& result = node(by.node);
  const Link &own = result.links[by.link], &other = result.links[1 - by.link];
  const Stack others = operands(results, 1 - by.link);
  const auto source = [&](const Rank& rank) { flow_.connect(flow_.add_source(rank.within(full.most)), into); };
  const std::vector<int> to = results_of(own, dim);
  if (result.kind == Node::Kind::Product && own.operand == other.operand && by.link == 1) return true;  // of a square
  if (result.zeros.defined() && result.zeros.item<bool>()) return source(unknown_rank(full, result.op)), false;
  if (to.size() != 1 || own.way != Way::Linear) return source(full), false;
  const auto at = static_cast<std::size_t>(to[0]);
  const Space incoming = gradients(results, to[0]);
  const bool one = are_one(others);
  if (result.kind == Node::Kind::Product) {
    const DimSource& axis = other.axes[at];
    const bool scale =
        axis.kind == Kind::Same ? is_vector_along(others[0], axis.from[0]) : rows({others[0]}, {}, false) == 1;
    if (one && scale && steps(own, to[0], by.node, true)) {
      flow_.connect(incoming.vertex, into);
      return axis.kind == Kind::Absent && incoming.sums_to_zero;
    }
    const Rank factor = axis.kind != Kind::Same    ? Rank::exactly(1)
                        : other.way == Way::Linear ? flow_.rank(values(others, axis.from[0]).vertex)
                                                   : full;
    source(flow_.rank(incoming.vertex) * factor);
    return axis.kind == Kind::Absent && incoming.sums_to_zero;
  }
  if (own.axes[at].kind == Kind::Same) {
    if (other.axes[at].kind == Kind::Same) return source(full), false;  // one of several products
    return source(flow_.rank(incoming.vertex)), incoming.sums_to_zero;
  }
  if (own.axes[at].from.size() > 1) return source(full), false;
  int contracted = -1;
  for (const DimSource& axis : other.axes) {
    if (axis.mixes() && axis.from.size() == 1) contracted = axis.from[0];
  }
  const Rank height = contracted < 0 ? full
                                     : flow_.rank(values(others, contracted).vertex,
                                                  /*constant=*/is_one_matrix(other, to[0]) || !incoming.sums_to_zero);
  if (!one && is_one_matrix(other, to[0])) return source(separate(stack, dim, true)), false;
  if (!is_one_matrix(other, to[0])) {  // nothing comes back where an attention is masked
    const bool certain = flow_.rank(incoming.vertex).unknown.empty();
    return source(certain ? height : unknown_rank(height, result.op)), false;
  }
  const Vertex through_matrix = flow_.add(height);
  flow_.connect(through_matrix, into);
  if (steps(own, to[0], by.node, true)) {
    flow_.connect(incoming.vertex, through_matrix);
  } else {
    flow_.connect(flow_.add_source(flow_.rank(incoming.vertex)), through_matrix);
  }
  return false;
}

}  // namespace dds::hooks
