#include "hooks/ranks.hpp"

#include <ATen/ops/_unique.h>

#include <algorithm>
#include <set>

namespace dds::hooks {

using Kind = DimSource::Kind;
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

bool is_normed(const Link& link, const Node& result, int dim) {
  if (link.drops_constants) return dim == 1;
  return result.op == "aten::sub" || dim + 1 == std::ssize(result.sizes);
}

Rank unknown_rank(const Rank& full, std::string_view op) {
  return {full.most, 0, full.most > 0 ? op : std::string_view()};
}

Rank between(std::int64_t least, const Rank& most, std::string_view op) {
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
    : graph_(graph),
      consumers_(consumers),
      any_samples_(any_samples),
      lookup_(graph.size()),
      distinct_(graph.size()),
      columns_known_(graph.size()),
      slices_(graph.size()) {
  for (NodeId id = 0; id < graph.size(); ++id) {
    lookup_[id] = lookup_of(id);
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      distinct_[id].push_back(count_distinct(id, dim));
      columns_known_[id].push_back(tell_columns(id, dim));
    }
  }
  for (NodeId id = graph.size(); id-- > 0;) {
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      slices_[id].push_back(gradient_slices(id, dim));
    }
  }
}

/// How many different slices a tensor has along a dimension.
std::int64_t Ranks::count_distinct(NodeId id, int dim) const {
  const std::int64_t all = size(id, dim);
  if (node(id).stacked_along == dim) {
    std::set<NodeId> parts;
    for (const Link& link : node(id).links) parts.insert(link.operand);
    return std::min(all, std::ssize(parts));
  }
  std::int64_t count = node(id).links.empty() ? all : 1, joined = 0;
  std::set<NodeId> parts;
  for (const Link& link : node(id).links) {
    const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
    const bool any =
        link.way == Way::Unknown || axis.kind == Kind::Mixed || (link.way == Way::Other && axis.kind == Kind::Absent);
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

namespace {

/// An operator that may leave columns out, or make several alike, in a way that is not followed.
bool loses_columns(const Node& result, const Link& link, const DimSource& axis) {
  const bool factor = result.kind != Node::Kind::Sum;
  return link.way == Way::Unknown || link.way == Way::Clips || (factor && result.zeros.defined()) ||
         (!factor && axis.kind == Kind::Mixed && link.taps == 1 && link.way == Way::Linear &&
          result.op.find("conv") == std::string::npos);
}

}  // namespace

bool Ranks::tell_columns(NodeId id, int dim) const {
  const Node& result = node(id);
  return std::all_of(result.links.begin(), result.links.end(), [&](const Link& link) {
    const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
    if (link.way == Way::Hidden || link.way == Way::Other) return true;
    if (loses_columns(result, link, axis)) return false;
    if (result.kind == Node::Kind::Contraction && axis.kind != Kind::Same) return true;
    return std::all_of(axis.from.begin(), axis.from.end(), [&](int from) { return columns_known(link.operand, from); });
  });
}

namespace {

/// True if each row of a result comes of one row of the operand alone.
bool takes_rows(const Link& link, const Node& result, std::size_t dims) {
  if (link.way != Way::Linear && link.way != Way::Rescaled && link.way != Way::Entries) return false;
  const int last = static_cast<int>(dims) - 1;
  for (std::size_t dim = 0; dim < link.axes.size(); ++dim) {
    const DimSource& axis = link.axes[dim];
    const bool features = dim + 1 == link.axes.size();
    if (!features && axis.kind == Kind::Mixed) return false;
    for (const int from : axis.from) {
      if ((from == last) != features) return false;
    }
  }
  return result.sizes.size() > 1;
}

}  // namespace

/// The lookup that each row of a tensor is a function of, whatever its position. -1 if there is none.
std::int64_t Ranks::lookup_of(NodeId id) const {
  const Node& result = node(id);
  if (result.table > 0) return static_cast<std::int64_t>(id);
  if (result.sizes.empty() || result.op.find("dropout") != std::string::npos) return -1;
  std::int64_t found = -1;
  std::size_t terms = 0;
  for (const Link& link : result.links) {
    const bool in_rows = std::any_of(link.axes.begin(), std::prev(link.axes.end()), [&](const DimSource& axis) {
      return axis.kind != Kind::Absent && !(node(link.operand).weight && axis.kind == Kind::Mixed);
    });
    if (link.way == Way::Hidden || (!in_rows && lookup_[link.operand] < 0)) continue;  // the same for all rows
    const std::int64_t lookup = takes_rows(link, result, node(link.operand).sizes.size()) ? lookup_[link.operand] : -1;
    if (lookup < 0 || (found >= 0 && found != lookup)) return -1;
    found = lookup;
    ++terms;
  }
  const bool arranged = std::any_of(result.links.begin(), result.links.end(), [&](const Link& link) {
    for (std::size_t dim = 0; dim + 1 < link.axes.size(); ++dim) {
      const DimSource& axis = link.axes[dim];
      if (axis.kind != Kind::Absent && (axis.kind != Kind::Same || axis.from[0] != static_cast<int>(dim))) return true;
    }
    return false;
  });
  return terms > 1 && arranged ? -1 : found;
}

/// How many different rows the lookup can give.
std::int64_t Ranks::different_tokens(NodeId lookup) const {
  const auto [place, fresh] = tokens_.try_emplace(lookup, kMany);
  const Node& table = node(lookup);
  if (!fresh) return place->second;
  if (any_samples_ && table.data_tokens) return place->second = table.table;
  if (!table.tokens.defined()) return kMany;
  return place->second = std::get<0>(at::_unique(table.tokens.detach().reshape({-1}))).numel();
}

std::int64_t Ranks::rows(const Stack& stack, const std::vector<int>& dims, bool gradients) const {
  std::int64_t sum = 0;
  for (const NodeId id : stack) {
    std::int64_t count = 1;
    for (int dim = 0; dim < static_cast<int>(node(id).sizes.size()); ++dim) {
      if (std::find(dims.begin(), dims.end(), dim) != dims.end()) continue;
      count = times(count, gradients ? slices(id, dim).different : distinct(id, dim));
    }
    const bool last = dims.size() == 1 && dims[0] + 1 == std::ssize(node(id).sizes);
    if (!gradients && last && lookup_[id] >= 0) {
      count = std::min(count, different_tokens(static_cast<NodeId>(lookup_[id])));
    }
    sum = std::min(kMany, sum + count);
  }
  return sum;
}

Ranks::Slices Ranks::gradient_slices(NodeId id, int dim) const {
  const std::int64_t all = size(id, dim);
  if (consumers_[id].empty() || !node(id).unseen.empty()) return {0, all, all, node(id).unseen.empty()};
  std::vector<Slices> parts;
  for (const Consumer& consumer : consumers_[id]) parts.push_back(slices_of(consumer, id, dim));
  std::sort(parts.begin(), parts.end(), [](const Slices& a, const Slices& b) { return a.begin < b.begin; });
  Slices sum = parts.front();
  std::int64_t different = 1;
  for (const Slices& part : parts) {
    different = times(different, part.different + (part.count() < all ? 1 : 0));  // or zero
    sum.gap = sum.gap || part.gap || part.begin > sum.end;
    sum.end = std::max(sum.end, part.end);
    sum.known = sum.known && part.known;
  }
  sum.different = std::min(different, sum.count());
  sum.known = sum.known && !sum.gap;
  return sum;
}

/// What one consumer sends back.
Ranks::Slices Ranks::slices_of(const Consumer& consumer, NodeId id, int dim) const {
  const Node& result = node(consumer.node);
  const Link& link = result.links[consumer.link];
  const std::int64_t all = size(id, dim);
  const auto every = [&](bool known) { return Slices{0, all, all, known}; };
  const auto part = [&](std::int64_t begin, std::int64_t count) {
    if (begin >= 0) return Slices{begin, std::min(all, begin + count), count};
    return count == all ? every(true) : Slices{0, all, std::min(all, count), /*known=*/false, /*gap=*/true};
  };
  if (link.chosen == dim) return part(link.chosen_at, 1);
  if (link.way == Way::Other || link.way == Way::Hidden) return every(!link.masked);
  if (link.drops_constants && dim != 1) return every(true);
  if (link.way == Way::Unknown || link.way == Way::Clips) return every(false);
  const std::vector<int> results = results_of(link, dim);
  if (results.empty()) {
    Slices one = every(true);
    if (link.way == Way::Linear && result.kind == Node::Kind::Sum && !link.coarser) one.different = 1;
    return one;
  }
  const int to = results.front();
  const DimSource& axis = link.axes[static_cast<std::size_t>(to)];
  if (axis.kind == Kind::Chosen) return part(axis.begin, axis.used);
  const bool normed = link.way == Way::Rescaled && !link.drops_constants && to + 1 == std::ssize(result.sizes);
  const bool whole = slices(consumer.node, to).count() == size(consumer.node, to);
  const bool lost =
      loses_columns(result, link, axis) || (!whole && (axis.kind == Kind::Joined || axis.kind == Kind::Copied));
  if (normed || axis.mixes() || results.size() > 1 || axis.from.size() > 1 || link.lacking_along == to || lost) {
    std::int64_t filled = 1;  // of a dimension that was split: all parts that are filled
    for (const int each : results) filled = times(filled, slices(consumer.node, each).count());
    const bool split = axis.kind == Kind::Part && axis.from.size() == 1;
    Slices parts = every(!lost);
    if (split) parts.different = std::min(all, filled);
    parts.gap = (split && filled < all) || (lost && !whole);
    parts.known = parts.known && !parts.gap;
    return parts;
  }
  Slices same = slices(consumer.node, to);
  const bool factor = result.kind != Node::Kind::Sum && consumer.link < 2 &&
                      result.links[1 - consumer.link].axes[static_cast<std::size_t>(to)].kind == Kind::Same;
  if (link.way == Way::Entries || link.way == Way::Rescaled || link.coarser || factor) same.different = same.count();
  return same;
}

/// True if a tensor varies along this dimension alone.
bool Ranks::is_vector_along(NodeId id, int dim) const { return rows({id}, {dim}, false) == 1; }

// ---- stacks ----

std::optional<Ranks::Space> Ranks::known_space(const Stack& stack, int dim, bool gradients) const {
  if (stack.size() == 1) {
    const auto known = spaces_of_one_.find(place_of(stack[0], dim, gradients));
    return known == spaces_of_one_.end() ? std::nullopt : std::optional(known->second);
  }
  const auto known = spaces_.find({stack, dim, gradients});
  return known == spaces_.end() ? std::nullopt : std::optional(known->second);
}

Ranks::Space Ranks::know(const Stack& stack, int dim, bool gradients, Space space) {
  if (stack.size() == 1) return spaces_of_one_[place_of(stack[0], dim, gradients)] = space;
  return spaces_[{stack, dim, gradients}] = space;
}

Ranks::Stack Ranks::operands(const Stack& stack, std::size_t link) const {
  Stack operands;
  for (const NodeId id : stack) operands.push_back(node(id).links[link].operand);
  return operands;
}

bool Ranks::alike(const Link& a, const Link& b) const {
  const auto same_axis = [](const DimSource& x, const DimSource& y) {
    return x.kind == y.kind && x.from == y.from && x.used == y.used && x.begin == y.begin;
  };
  const bool weights = node(a.operand).weight || node(b.operand).weight;
  return a.way == b.way && a.finer == b.finer && a.taps == b.taps && a.groups == b.groups &&
         (!weights || are_one({a.operand, b.operand})) &&
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
    return other.op == first.op && other.kind == first.kind && other.shift == first.shift &&
           other.sizes.size() == first.sizes.size() &&
           std::equal(first.links.begin(), first.links.end(), other.links.begin(), other.links.end(),
                      // A norm over all rows is another map for each batch.
                      [&](const Link& a, const Link& b) { return alike(a, b) && (&a == &b || !a.drops_constants); });
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
