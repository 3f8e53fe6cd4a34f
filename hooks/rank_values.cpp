// Ranks of the values of tensors.
#include <ATen/ops/_unique.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>

#include <algorithm>
#include <set>

#include "hooks/ranks.hpp"

namespace dds::hooks {

using Kind = DimSource::Kind;
using Way = Link::Way;

namespace {

bool false_for_certain(const at::Tensor& flag) { return flag.defined() && !flag.item<bool>(); }
bool true_for_certain(const at::Tensor& flag) { return flag.defined() && flag.item<bool>(); }

}  // namespace

/// As many as there are different columns, or rows.
Rank Ranks::all_columns(const Stack& stack, int dim) const {
  std::int64_t columns = 0;
  for (const NodeId id : stack) columns = std::max(columns, distinct(id, dim));
  const Rank all = Rank::exactly(size(stack.front(), dim)).within(rows(stack, {dim}, false));
  if (stack.size() == 1) return all.within(columns);
  const bool tokens = std::any_of(stack.begin(), stack.end(), [&](NodeId id) { return lookup_[id] >= 0; });
  return between(tokens ? std::min(columns, rows({stack.front()}, {dim}, false)) : columns, all, node(stack[0]).op);
}

Ranks::Space Ranks::values(Stack stack, int dim) {
  std::sort(stack.begin(), stack.end());
  stack.erase(std::unique(stack.begin(), stack.end()), stack.end());
  if (const auto known = known_space(stack, dim, false)) return *known;
  const Node& first = node(stack.front());
  Rank full = all_columns(stack, dim);
  const Vertex into = flow_.add(full);
  bool sums_to_zero = false;
  const Deeper deeper(depth_);
  if (deeper.too_deep()) {
    flow_.connect(flow_.add_source(unknown_rank(full, kLongChain)), into);
  } else if (!alike(stack)) {
    flow_.connect(flow_.add_source(separate(stack, dim, false)), into);
  } else if (first.table > 0) {
    bool every_row = false;  // then the constant rows are a sum of those of the tokens
    Rank tokens = lookup(stack, full, every_row);
    if (every_row && tokens.most == tokens.least) {
      tokens = Rank::exactly(tokens.most - 1);
      flow_.connect(RankFlow::kConstant, into);
    }
    flow_.connect(flow_.add_source(tokens), into);
  } else if (!given(stack, dim, into) && !joined_rows(stack, dim, into)) {
    std::size_t next = 0;
    const bool factors = first.kind == Node::Kind::Product || first.kind == Node::Kind::Contraction;
    if (factors) {
      next = 2;
      const bool done =
          first.kind == Node::Kind::Product ? product(stack, dim, into, full) : contraction(stack, dim, into);
      if (!done) flow_.connect(flow_.add_source(full), into);
    }
    sums_to_zero = !factors;
    for (; next < first.links.size(); ++next) through(stack, next, dim, into, full, sums_to_zero);
    if (first.shift != 0) flow_.connect(RankFlow::kConstant, into);
    sums_to_zero = sums_to_zero && first.shift == 0;
    if (sums_to_zero) full = full.within(std::max<std::int64_t>(0, size(stack.front(), dim) - 1));
    if (terms_may_cancel(stack.front(), dim)) full = unknown_rank(full, first.op);
    flow_.limit(into, full);
    if (stack.size() == 1) within_rows(stack.front(), dim, into, full);
  }
  return know(stack, dim, false, {into, sums_to_zero});
}

/// Rows of several tensors, one below the other. False if it is no such thing.
bool Ranks::joined_rows(const Stack& stack, int dim, Vertex into) {
  const Node& first = node(stack.front());
  Stack parts;
  int along = -1;
  bool joins = first.stacked_along >= 0;
  for (std::size_t i = 0; i < first.links.size(); ++i) {
    const DimSources& axes = first.links[i].axes;
    const DimSource& own = axes[static_cast<std::size_t>(dim)];
    if (own.kind != Kind::Same || (along >= 0 && own.from[0] != along)) return false;
    along = own.from[0];
    joins =
        joins || std::any_of(axes.begin(), axes.end(), [](const DimSource& axis) { return axis.kind == Kind::Joined; });
    for (const NodeId id : operands(stack, i)) parts.push_back(id);
  }
  if (!joins) return false;
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  Rank all = Rank::exactly(0);
  if (alike(parts)) {
    all = flow_.rank(values(parts, along).vertex);
  } else {
    std::int64_t least = 0;
    bool related = false;
    for (const NodeId part : parts) {
      const Vertex vertex = values({part}, along).vertex;
      for (const NodeId other : parts)
        related = related || (other < part && !independent(vertex, values({other}, along).vertex));
      least = std::max(least, flow_.rank(vertex).least);
    }
    all = separate(parts, along, false);
    if (related) all = between(least, all, first.op);
  }
  flow_.connect(flow_.add_source(all), into);
  return true;
}

/// The rows of a sum lie in the space of its operands' rows, whatever was done to the order of these.
void Ranks::within_rows(NodeId id, int dim, Vertex vertex, const Rank& full) {
  const Node& sum = node(id);
  if (sum.kind != Node::Kind::Sum || sum.links.size() < 2) return;
  Stack bases;
  int along = -1;
  bool direct = true;
  for (const Link& first : sum.links) {
    const Link* link = &first;
    int at = dim;
    while (true) {
      const DimSource& axis = link->axes[static_cast<std::size_t>(at)];
      if (link->way != Way::Linear || axis.kind != Kind::Same || link->taps != 1 || link->scaled || link->finer) {
        return;
      }
      at = axis.from[0];
      const Node& operand = node(link->operand);
      if (operand.kind != Node::Kind::Sum || operand.links.size() != 1 || operand.shift != 0 ||
          operand.links[0].way != Way::Linear ||
          operand.links[0].axes[static_cast<std::size_t>(at)].kind != Kind::Same) {
        break;
      }
      link = &operand.links[0];
      direct = false;  // it may have been scaled
    }
    if (along >= 0 && along != at) return;
    along = at;
    bases.push_back(link->operand);
  }
  std::sort(bases.begin(), bases.end());
  const bool cancels = direct && sum.difference && (bases[0] == bases[1] || alike(bases));
  bases.erase(std::unique(bases.begin(), bases.end()), bases.end());
  if (bases.size() > 1 && !alike(bases)) return;
  flow_.limit(vertex, smaller(full, flow_.rank(values(bases, along).vertex, /*constant=*/!cancels)));
}

/// No more than there are different tokens. `every_row`: none of them stands for a row of zeros.
Rank Ranks::lookup(const Stack& stack, const Rank& full, bool& every_row) const {
  std::set<std::int64_t> tokens;
  const Node& first = node(stack.front());
  const bool zero_padding = first.padding >= 0 && false_for_certain(first.nonzero);
  const std::int64_t table = first.table - (zero_padding ? 1 : 0);
  every_row = !zero_padding;
  if (any_samples_ && first.data_tokens) return Rank::exactly(table);
  for (const NodeId id : stack) {
    if (!node(id).tokens.defined()) {
      const Rank limit = full.within(table);
      return {limit.most, std::min<std::int64_t>(1, limit.most),
              limit.most > 1 ? std::string_view(first.op) : std::string_view()};
    }
    const at::Tensor unique = std::get<0>(at::_unique(node(id).tokens.detach().reshape({-1}))).to(at::kCPU, at::kLong);
    tokens.insert(unique.data_ptr<std::int64_t>(), unique.data_ptr<std::int64_t>() + unique.numel());
  }
  every_row = !(zero_padding && tokens.erase(first.padding) > 0);
  return Rank::exactly(std::ssize(tokens));
}

/// Of tensors that were given, and of those that vary along this dimension alone.
bool Ranks::given(const Stack& stack, int dim, Vertex into) {
  const Node& first = node(stack.front());
  const bool is_leaf = first.links.empty();
  if (stack.size() == 1 && is_vector_along(stack.front(), dim)) {
    if (is_leaf && false_for_certain(first.nonzero)) return true;
    flow_.connect(RankFlow::kConstant, into);
    return true;
  }
  if (!is_leaf) return false;
  if (any_samples_ || !first.columns.defined() || first.features != dim || stack.size() > 1) {
    flow_.connect(flow_.add_source(Rank::exactly(kMany)), into);
    return true;
  }
  std::vector<std::int64_t> others;
  for (int other = 0; other < static_cast<int>(first.columns.dim()); ++other) {
    if (other != dim) others.push_back(other);
  }
  const at::Tensor high = at::amax(first.columns, others), low = at::amin(first.columns, others);
  const at::Tensor constant = high.eq(low);
  const auto varying = constant.numel() - constant.sum().item<std::int64_t>();
  flow_.connect(flow_.add_source(Rank::exactly(varying)), into);
  if (constant.logical_and(high.ne(0)).any().item<bool>()) flow_.connect(RankFlow::kConstant, into);
  return true;
}

/// True if rows of the result and of the operand run in step, so that a map along `dim` leaves their column space.
bool Ranks::steps(const Link& link, int dim, NodeId result, bool of_gradients) const {
  std::set<int> used;
  for (int to = 0; to < static_cast<int>(link.axes.size()); ++to) {
    const DimSource& axis = link.axes[static_cast<std::size_t>(to)];
    used.insert(axis.from.begin(), axis.from.end());
    if (to == dim) continue;
    if (axis.mixes() || (axis.kind == Kind::Same && !axis.aligned)) return false;
    if (of_gradients && axis.kind == Kind::Absent && size(result, to) > 1) return false;  // it is summed over
  }
  const auto& sizes = node(link.operand).sizes;
  for (int from = 0; from < static_cast<int>(sizes.size()); ++from) {
    if (used.count(from) == 0 && size(link.operand, from) > 1) return false;
  }
  return true;
}

void Ranks::mapped(const Stack& operands, int from, const Link& link, bool in_step, std::int64_t width, Vertex into) {
  const Space space = values(operands, from);
  if (in_step && link.taps == 1 && link.groups == 1) {
    flow_.connect(space.vertex, into);
    return;
  }
  const Rank all = flow_.rank(space.vertex), without = flow_.rank(space.vertex, /*constant=*/false);
  const bool keeps = link.keeps_constants && all.most > without.most;
  flow_.connect(flow_.add_source(mapped_rank(keeps ? without : all, link, size(operands.front(), from), width)), into);
  if (keeps) flow_.connect(RankFlow::kConstant, into);
}

void Ranks::through(const Stack& stack, std::size_t number, int dim, Vertex into, const Rank& full,
                    bool& sums_to_zero) {
  const Node& first = node(stack.front());
  const Link& link = first.links[number];
  Stack from = operands(stack, number);
  from.erase(std::unique(from.begin(), from.end()), from.end());
  const auto source = [&](const Rank& rank) { flow_.connect(flow_.add_source(rank), into); };
  if (link.way == Way::Hidden) return;
  const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
  const bool vector =
      from.size() == 1 && (axis.kind == Kind::Absent ? rows(from, {}, false) == 1
                                                     : axis.from.size() == 1 && is_vector_along(from[0], axis.from[0]));
  if (link.way == Way::Unknown || link.way == Way::Clips || link.finer) {
    sums_to_zero = false;
    return source(unknown_rank(full, first.op));
  }
  if (vector && (link.way == Way::Linear || link.way == Way::Entries)) {
    const Node& operand = node(from[0]);
    if (false_for_certain(first.nonzero) || (operand.links.empty() && false_for_certain(operand.nonzero))) return;
    sums_to_zero = false;
    const bool stays = link.way == Way::Entries || link.keeps_constants || steps(link, dim, stack.front(), false);
    flow_.connect(stays ? RankFlow::kConstant : flow_.add_source(Rank::exactly(link.taps)), into);
    return;
  }
  if (link.way == Way::Linear && axis.kind == Kind::Same) {
    sums_to_zero = sums_to_zero && !link.scaled && values(from, axis.from[0]).sums_to_zero;
    return mapped(from, axis.from[0], link, steps(link, dim, stack.front(), false), full.most, into);
  }
  const bool centred = link.way == Way::Rescaled && link.lacking_along == dim && number == 0 && first.links.size() == 1;
  sums_to_zero = sums_to_zero && centred && first.op == "aten::sub";
  if (link.way == Way::Other && link.sums_to_zero == dim && first.op.ends_with("softmax") &&
      first.op.find("log") == std::string::npos) {  // its entries sum to one
    flow_.connect(RankFlow::kConstant, into);
    return source(full.within(std::max<std::int64_t>(0, size(stack.front(), dim) - 1)));
  }
  if (link.way != Way::Linear) return source(through_function(stack, from, link, dim, full));
  if (axis.kind == Kind::Absent) {
    const Node& operand = node(from[0]);  // a mean over the features may lie within what it is added to
    const bool made = operand.kind == Node::Kind::Sum && first.links.size() > 1;
    return source(made ? unknown_rank(Rank::exactly(1), first.op) : Rank::exactly(1));
  }
  if (axis.kind == Kind::Chosen && axis.begin < 0 && stack.size() > 1) return source(unknown_rank(full, first.op));
  if (axis.kind != Kind::Part && axis.from.size() == 1) {
    return mapped(from, axis.from[0], link, steps(link, dim, stack.front(), false), full.most, into);
  }
  source(axis.kind == Kind::Mixed ? unknown_rank(full, first.op) : through_merging(stack, from, link, dim, full));
}

/// Of what is not linear.
Rank Ranks::through_function(const Stack& stack, const Stack& from, const Link& link, int dim, const Rank& full) {
  const Node& first = node(stack.front());
  const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
  const std::int64_t wide = size(stack.front(), dim) - (link.lacking_along == dim ? link.lacking : 0);
  const bool known = axis.kind != Kind::Same ||
                     std::all_of(from.begin(), from.end(), [&](NodeId id) { return columns_known(id, axis.from[0]); });
  if (link.way == Way::Other) return known ? full.within(wide) : unknown_rank(full.within(wide), first.op);
  if (axis.kind == Kind::Absent) return Rank::exactly(1);
  if (axis.kind != Kind::Same) return unknown_rank(full, first.op);
  if (link.way == Way::Entries) {
    const bool narrow = link.homogeneous && flow_.rank(values(from, axis.from[0]).vertex).most <= 1;
    return !known ? unknown_rank(full, first.op) : narrow ? between(1, full.within(2), first.op) : full;
  }
  if (!is_normed(link, first, dim)) return link.drops_constants ? unknown_rank(full, first.op) : full;  // row by row
  const Rank rank = flow_.rank(values(from, axis.from[0]).vertex, !link.drops_constants);
  if (link.lacking > 0 && distinct(from[0], axis.from[0]) < size(from[0], axis.from[0])) {  // the mean is in their span
    return between(std::max<std::int64_t>(0, rank.least - 1), rank.within(wide), first.op);
  }
  // Over all rows a norm leaves columns that sum to zero.
  return rank.within(std::min(wide, rows(stack, {dim}, false) - (link.drops_constants ? 1 : 0)));
}

/// Of dimensions that are merged with others, or split: these multiply a rank, or divide it.
Rank Ranks::through_merging(const Stack& stack, const Stack& from, const Link& link, int dim, const Rank& full) {
  const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
  std::int64_t others = 1, least = 0;
  for (std::size_t other = 0; axis.kind == Kind::Part && other < link.axes.size(); ++other) {
    const bool beside = static_cast<int>(other) != dim && link.axes[other].from == axis.from;
    if (beside) others = times(others, size(stack.front(), static_cast<int>(other)));
  }
  Rank all = Rank::exactly(others), generic = Rank::exactly(1);
  for (const int each : axis.from) {
    const Vertex vertex = values(from, each).vertex;
    const Rank one = flow_.rank(vertex);
    all = all * one;
    generic = generic * flow_.rank(vertex, /*constant=*/false);  // rows that are constant stay one
    std::int64_t beside = others;
    for (const int other : axis.from) beside = other == each ? beside : times(beside, size(from.front(), other));
    least = std::max(least, (one.least + beside - 1) / std::max<std::int64_t>(1, beside));
  }
  if (axis.kind == Kind::Merged && !merges_what_was_split(from.front())) least = std::max(least, generic.least);
  return between(std::min(least, full.most), all.within(full.most), node(stack.front()).op);
}

/// True if two spaces have no direction in common but that of the constant rows.
bool Ranks::independent(Vertex a, Vertex b) {
  if (!flow_.meet(a, b)) return true;
  const Vertex both = flow_.add(Rank::exactly(kMany));
  flow_.connect(a, both);
  flow_.connect(b, both);
  return flow_.rank(both, false).most == flow_.rank(a, false).most + flow_.rank(b, false).most;
}

/// Entry by entry, of the first two operands. A vector along the dimension is a scale for each column.
bool Ranks::product(const Stack& stack, int dim, Vertex into, const Rank& full) {
  const Node& first = node(stack.front());
  if (true_for_certain(first.zeros)) {
    flow_.connect(flow_.add_source(unknown_rank(full, first.op)), into);
    return true;
  }
  Rank all = Rank::exactly(1);
  int constants = 0;  // factors with constant rows, whose product is one too
  std::vector<Vertex> factors;
  for (std::size_t i = 0; i < 2; ++i) {
    const Link& other = first.links[1 - i];
    const DimSource& axis = other.axes[static_cast<std::size_t>(dim)];
    const Stack scales = operands(stack, 1 - i);
    const bool same = are_one(scales);
    const bool scale =
        axis.kind == Kind::Same ? is_vector_along(scales[0], axis.from[0]) : rows({scales[0]}, {}, false) == 1;
    const DimSource& own = first.links[i].axes[static_cast<std::size_t>(dim)];
    if (same && scale && own.kind == Kind::Same && first.links[i].way == Way::Linear) {
      mapped(operands(stack, i), own.from[0], first.links[i], steps(first.links[i], dim, stack.front(), false),
             full.most, into);
      return true;
    }
    if (axis.kind != Kind::Same) continue;
    if (other.way != Way::Linear) {
      all = all * full;
      continue;
    }
    const Vertex factor = values(scales, axis.from[0]).vertex;
    factors.push_back(factor);
    all = all * flow_.rank(factor);
    constants += flow_.rank(factor).most > flow_.rank(factor, /*constant=*/false).most ? 1 : 0;
  }
  if (factors.size() == 2 && first.links[0].operand != first.links[1].operand && !independent(factors[0], factors[1])) {
    all = between(1, all, first.op);  // of linear functions of the same
  }
  if (first.links[0].operand == first.links[1].operand &&
      first.links[0].axes[static_cast<std::size_t>(dim)].kind == Kind::Same) {  // a square: of rank r (r + 1) / 2
    const Rank rank =
        flow_.rank(values(operands(stack, 0), first.links[0].axes[static_cast<std::size_t>(dim)].from[0]).vertex);
    if (rank.most < kMany / (rank.most + 1)) {
      all = {rank.most * (rank.most + 1) / 2, rank.least * (rank.least + 1) / 2, rank.unknown};
    }
  }
  if (constants == 2) {
    all.most -= 1;
    all.least = std::max<std::int64_t>(0, all.least - 1);
    flow_.connect(RankFlow::kConstant, into);
  }
  flow_.connect(flow_.add_source(all.within(full.most)), into);
  return true;
}

bool Ranks::contraction(const Stack& stack, int dim, Vertex into) {
  const Node& first = node(stack.front());
  const auto at = static_cast<std::size_t>(dim);
  for (std::size_t i = 0; i < 2; ++i) {
    const Link &own = first.links[i], &other = first.links[1 - i];
    if (own.axes[at].kind != Kind::Same || !other.axes[at].mixes()) continue;
    const Stack from = operands(stack, i), contracted = operands(stack, 1 - i);
    const Rank width = flow_.rank(values(from, own.axes[at].from[0]).vertex);
    if (!is_one_matrix(own, dim)) {
      Link mixing = own;
      mapped(from, own.axes[at].from[0], mixing, /*in_step=*/false, size(stack.front(), dim), into);
      return true;
    }
    if (!are_one(from)) {
      flow_.connect(flow_.add_source(separate(stack, dim, false)), into);
      return true;
    }
    const Vertex through_matrix = flow_.add(width);
    flow_.connect(through_matrix, into);
    if (other.axes[at].from.size() == 1) {
      mapped(contracted, other.axes[at].from[0], other, steps(other, dim, stack.front(), false),
             size(stack.front(), dim), through_matrix);
    } else {
      Rank all = Rank::exactly(1);
      for (const int each : other.axes[at].from) all = all * flow_.rank(values(contracted, each).vertex);
      flow_.connect(flow_.add_source(all), through_matrix);
    }
    return true;
  }
  return false;
}

Rank Ranks::of_values(const Stack& stack, const std::vector<int>& dims) {
  Rank all = Rank::exactly(1);
  for (const int dim : dims) all = all * flow_.rank(values(stack, dim).vertex);
  return all.within(rows(stack, dims, false));
}

Rank Ranks::of_gradients(const Stack& stack, const std::vector<int>& dims) {
  Rank all = Rank::exactly(1);
  for (const int dim : dims) all = all * flow_.rank(gradients(stack, dim).vertex);
  return all.within(rows(stack, dims, true));
}

}  // namespace dds::hooks
