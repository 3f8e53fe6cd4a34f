// Rules of operators that work entry by entry, of losses, and of tensors that are made of nothing.
#include <ATen/ops/eq.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "hooks/features.hpp"
#include "hooks/pass_graph.hpp"
#include "hooks/rule.hpp"

namespace dds::hooks::rules {
namespace {

using Way = Link::Way;

bool all_by(Rule& rule, Way way) {
  for (const at::Tensor& tensor : rule.ended.operands) rule.add(tensor, way);
  return true;
}

/// Digits of a floating type, in an order.
int digits(at::ScalarType type) {
  if (!at::isFloatingType(type) && !at::isComplexType(type)) return 3;
  const auto real = c10::toRealValueType(type);
  return real == at::kDouble ? 3 : real == at::kFloat ? 2 : 1;
}

/// x - mean(x) over a dimension: its entries along it sum to zero.
bool centres(Rule& rule, const at::Tensor& whole, const at::Tensor& mean) {
  const Node* of_mean = rule.node(mean);
  if (!of_mean || of_mean->op.find("mean") == std::string::npos || of_mean->links.size() != 1 ||
      of_mean->links[0].operand != rule.node_id(whole)) {
    return false;
  }
  int along = -1;
  for (int dim = 0; dim < static_cast<int>(whole.dim()); ++dim) {
    if (mean.dim() != whole.dim() || mean.size(dim) == whole.size(dim)) continue;
    if (along >= 0) return false;
    along = dim;
  }
  if (along < 0) return false;
  Link& link = rule.add(whole, Way::Rescaled);
  link.lacking_along = link.sums_to_zero = along;
  link.lacking = 1;
  return true;
}

}  // namespace

// ---- of one tensor, or of several alike ----

bool entries(Rule& rule) {
  rule.add(rule.tensor(0), Way::Entries);
  return true;
}

bool homogeneous_entries(Rule& rule) {
  rule.add(rule.tensor(0), Way::Entries).homogeneous = true;
  return true;
}

bool entries_of_all(Rule& rule) { return all_by(rule, Way::Entries); }
/// Such as a clamp, which may leave all entries as they are.
bool clips(Rule& rule) { return all_by(rule, Way::Clips); }
bool counted_entries(Rule& rule) { return all_by(rule, Way::Counts); }

bool same_entries(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined()) return false;
  const int from = digits(input.scalar_type()), to = digits(rule.output().scalar_type());
  Link& link = rule.add(input);
  const Node* node = rule.node(input);
  link.finer = to > from && node && !node->links.empty();
  link.coarser = to < from;
  return true;
}

bool dropout(Rule& rule) {
  const bool drops = bool_at(rule.args(), 2, false) && number_at(rule.args(), 1, 0) > 0;
  rule.add(rule.tensor(0), drops ? Way::Entries : Way::Linear);
  return true;
}

bool copied(Rule& rule) {
  rule.add(rule.tensor(1));
  return true;
}

/// Where it is not followed what becomes of the entries.
bool counted_dims(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  const bool whole = input.defined() && input.sizes() == rule.output().sizes();
  return whole ? (rule.counts(input, same_dims(input)), true) : counted_samples(rule);
}

bool counted_samples(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  DimSources axes = rule.none();
  if (!input.defined() || axes.empty() || input.dim() != rule.output().dim()) return false;
  if (input.size(0) == rule.output().size(0)) axes[0] = same_dim(0);
  rule.counts(input, std::move(axes));
  return true;
}

// ---- of several tensors ----

bool sum(Rule& rule) {
  const at::Tensor left = rule.tensor(0), right = rule.tensor(1);
  if (!left.defined()) return false;
  const bool less = rule.name() == "sub" && number_at(rule.args(), 2, 1) == 1;
  if (right.defined() && less && centres(rule, left, right)) return true;
  rule.add(left);
  if (right.defined()) rule.add(right);
  if (!right.defined()) rule.meaning.shift = number_at(rule.args(), 1, 1) * number_at(rule.args(), 2, 1);
  rule.meaning.difference = less;
  return true;
}

bool product(Rule& rule) {
  const at::Tensor left = rule.tensor(0), right = rule.tensor(1);
  if (!left.defined()) return false;
  if (!right.defined() || (right.dim() == 0 && !right.requires_grad())) {
    const bool none = !right.defined() ? number_at(rule.args(), 1, 1) == 0
                                       : rule.ranks() && right.is_cpu() && at::eq(right, 0).item<bool>();
    rule.add(left, none ? Way::Clips : Way::Linear);
    return true;
  }
  const bool divides = rule.name() == "div" || rule.name() == "divide" || rule.name() == "true_divide";
  if (divides && rule.args().size() > 2) return entries_of_all(rule);  // rounds
  rule.meaning.kind = Meaning::Kind::Product;
  rule.add(left);
  rule.add(right, divides ? Way::Entries : Way::Linear);
  at::Tensor& zeros = rule.meaning.zeros;
  for (const at::Tensor& factor : {left, right}) {
    if (factor.requires_grad() || !rule.ranks()) continue;
    const at::Tensor own = any_zero(factor);
    zeros = zeros.defined() ? zeros.logical_or(own) : own;
  }
  return true;
}

bool power(Rule& rule) {
  const at::Tensor base = rule.tensor(0);
  const bool square = rule.name() == "square" || number_at(rule.args(), 1, 0) == 2;
  if (!base.defined() || !square) return entries_of_all(rule);
  rule.meaning.kind = Meaning::Kind::Product;
  rule.add(base);
  rule.add(base);
  return true;
}

/// where(mask, a, b) and masked_fill(x, mask, value).
bool masked(Rule& rule) {
  const bool fills = rule.name() == "masked_fill";
  const at::Tensor mask = rule.tensor(fills ? 1 : 0);
  if (!mask.defined()) return false;
  for (std::size_t place = fills ? 0 : 1; place < (fills ? 1 : 3); ++place) {
    if (const at::Tensor tensor = rule.tensor(place); tensor.defined()) rule.add(tensor, Way::Clips);
  }
  rule.add(mask, Way::Hidden);
  return true;
}

// ---- softmax and losses ----

bool softmax(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined()) return false;
  const int dim = static_cast<int>(from_front(int_at(rule.args(), 1, -1), input.dim()));
  rule.add(input, Way::Other).sums_to_zero = dim;
  rule.event(Event::Kind::Blended, input, dim);
  return true;
}

/// (output, target): the first dimension of both counts samples.
bool loss(Rule& rule) {
  const at::Tensor input = rule.tensor(0), target = rule.tensor(1);
  if (!input.defined()) return false;
  for (const at::Tensor& tensor : rule.ended.operands) rule.add(tensor, Way::Other, {});
  if (rule.place() == 0 && target.defined() && input.dim() > 0 && target.dim() > 0) {
    const bool one_by_one = input.sizes() == target.sizes() && input.dim() == rule.output().dim();
    DimSources axes = one_by_one ? same_dims(input) : rule.none();
    if (!axes.empty() && rule.output().size(0) == input.size(0)) axes[0] = same_dim(0);
    if (one_by_one) rule.counts(target, axes);
    if (input.size(0) == target.size(0)) rule.together(input, 0, target, 0);
    rule.counts(input, std::move(axes));
  }
  if (rule.name() != "cross_entropy_loss") return true;
  Link& link = rule.meaning.links.front();
  link.sums_to_zero = input.dim() > 1 ? 1 : 0;
  if (rule.ranks() && at::isIntegralType(target.scalar_type(), false)) {
    link.counted = at::ne(target, int_at(rule.args(), 4, -100)).sum();
  }
  return true;
}

// ---- made of nothing ----

bool fresh(Rule&) { return true; }

bool constant(Rule& rule) {
  rule.meaning.values = Meaning::Values::Constant;
  return true;
}

/// Room, of which nothing is told.
bool room_like(Rule& rule) { return rule.ranks() || constant(rule); }

bool fresh_like(Rule& rule) {
  rule.counts(rule.tensor(0), rule.broadcast(rule.tensor(0)));
  return true;
}

/// Every entry is the same.
bool filled(Rule& rule) {
  std::fill(rule.meaning.sizes.begin(), rule.meaning.sizes.end(), 1);
  if (rule.ranks() && rule.name().find("zero") != std::string_view::npos) {
    rule.meaning.nonzero = at::zeros({}, at::kBool);
  }
  return true;
}

/// What its dimensions count is told by what is written into it.
bool filled_like(Rule& rule) { return filled(rule) && (rule.ranks() || constant(rule)); }
bool filled_anew(Rule& rule) { return filled(rule) && constant(rule); }

/// Random numbers are data: noise that a generator makes samples of.
bool random(Rule& rule) {
  const auto& operands = rule.ended.operands;
  if (operands.empty() || operands.front().is_same(rule.output())) {
    rule.meaning.values = Meaning::Values::Random;
  } else {
    counted_dims(rule);
  }
  return true;
}

bool random_entries(Rule& rule) { return random(rule) && entries(rule); }

}  // namespace dds::hooks::rules
