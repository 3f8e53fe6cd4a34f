// Rules of operators that arrange the entries of a tensor, choose among them, or mix them along dimensions.
#include <ATen/ops/_unique.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <numeric>

#include "hooks/features.hpp"
#include "hooks/rule.hpp"

namespace dds::hooks::rules {
namespace {

using Kind = DimSource::Kind;
using Way = Link::Way;

DimSource& at_dim(DimSources& axes, int dim) { return axes[static_cast<std::size_t>(dim)]; }
int dims_of(const at::Tensor& tensor) { return static_cast<int>(tensor.dim()); }

std::vector<int> long_dimensions(const at::Tensor& tensor, int first) {
  std::vector<int> dims;
  for (int dim = first; dim < dims_of(tensor); ++dim) {
    if (tensor.size(dim) != 1) dims.push_back(dim);
  }
  return dims;
}

}  // namespace

// ---- views ----

/// The same entries in the same order: runs of dimensions of the operand that are runs of the result's.
bool reshape(Rule& rule) {
  const at::Tensor from = rule.tensor(0), &output = rule.output();
  if (!from.defined() || from.numel() != output.numel()) return false;
  DimSources axes = rule.none();
  int equal = 0;  // dimensions at the front that stay, a batch of one among them
  while (equal < std::min(from.dim(), output.dim()) && from.size(equal) == output.size(equal)) {
    at_dim(axes, equal) = same_dim(equal);
    ++equal;
  }
  const std::vector<int> old = long_dimensions(from, equal), now = long_dimensions(output, equal);
  std::size_t i = 0, j = 0;
  while (from.numel() > 0 && i < old.size() && j < now.size()) {
    std::vector<int> before{old[i]}, after{now[j]};
    std::int64_t a = from.size(old[i++]), b = output.size(now[j++]);
    while (a != b) {
      if (a < b) {
        before.push_back(old[i]);
        a *= from.size(old[i++]);
      } else {
        after.push_back(now[j]);
        b *= output.size(now[j++]);
      }
    }
    const Kind kind = after.size() > 1    ? (before.size() > 1 ? Kind::Mixed : Kind::Part)
                      : before.size() > 1 ? Kind::Merged
                                          : Kind::Same;
    for (const int dim : after) at_dim(axes, dim) = {kind, before};
  }
  rule.add(from, Way::Linear, std::move(axes));
  return true;
}

bool permutation(Rule& rule) {
  const at::Tensor from = rule.tensor(0);
  if (!from.defined()) return false;
  std::vector<int> order(static_cast<std::size_t>(from.dim()));
  std::iota(order.begin(), order.end(), 0);
  if (rule.name() == "permute") {
    order = rule.dims_at(1, from);
  } else if (rule.name() == "t") {
    std::reverse(order.begin(), order.end());
  } else {
    const std::vector<int> a = rule.dims_at(1, from), b = rule.dims_at(2, from);
    if (a.size() != 1 || b.size() != 1 || from.dim() == 0) return false;
    std::swap(order[static_cast<std::size_t>(a[0])], order[static_cast<std::size_t>(b[0])]);
  }
  if (std::ssize(order) != rule.output().dim()) return false;
  DimSources axes;
  for (const int dim : order) axes.push_back(same_dim(dim));
  rule.add(from, Way::Linear, std::move(axes));
  return true;
}

bool expansion(Rule& rule) {
  rule.add(rule.tensor(0));
  return true;
}

// ---- choices ----

namespace {

/// The entry of a dimension with which a view begins. -1 if it is no such view.
std::int64_t begin_of(const at::Tensor& view, const at::Tensor& whole, int dim) {
  const std::int64_t stride = whole.stride(dim), offset = view.storage_offset() - whole.storage_offset();
  const bool steps = view.dim() == whole.dim() && view.size(dim) > 1 && view.stride(dim) != stride;
  return stride <= 0 || offset < 0 || offset % stride != 0 || steps ? -1 : offset / stride;
}

/// Indices: how many different ones there are.
std::int64_t different(const at::Tensor& indices) {
  if (indices.scalar_type() == at::kBool) return indices.sum().item<std::int64_t>();
  return std::get<0>(at::_unique(indices)).numel();
}

/// x[index_select's indices along one dimension].
bool chosen_along(Rule& rule, const at::Tensor& from, int dim, const at::Tensor& indices) {
  if (!indices.defined() || indices.dim() != 1 || from.dim() != rule.output().dim() || dim >= from.dim()) return false;
  DimSources axes = same_dims(from);
  at_dim(axes, dim) = {Kind::Chosen, {dim}, true, rule.ranks() ? different(indices) : -1};
  rule.add(from, Way::Linear, std::move(axes));
  rule.hide(indices);
  return true;
}

/// What dimensions of x[..., indices, ...] count, for indices side by side. One that counts from 0 on takes all, as in
/// log_p[arange(n), y].
void count_indexed(Rule& rule, const at::Tensor& from, int first, const std::vector<at::Tensor>& indices) {
  const auto plain = [](const at::Tensor& index) { return index.dim() == 1 && index.scalar_type() == at::kLong; };
  const int gone = static_cast<int>(indices.size()) - 1;
  if (rule.ranks() || !std::all_of(indices.begin(), indices.end(), plain) ||
      dims_of(rule.output()) + gone != dims_of(from))
    return;
  const bool whole = indices[0].size(0) == from.size(first) &&
                     at::equal(indices[0], at::arange(from.size(first), indices[0].options()));
  DimSources kept = rule.none(), chosen = rule.none();
  for (int dim = 0; dim < dims_of(rule.output()); ++dim) {
    if (dim != first || whole) at_dim(kept, dim) = same_dim(dim > first ? dim + gone : dim);
  }
  at_dim(chosen, first) = same_dim(0);
  rule.counts(from, std::move(kept));
  for (const at::Tensor& index : indices) {
    const bool told = whole && index.is_same(indices[0]);
    if (!told && index.sizes() == indices[0].sizes()) rule.counts(index, chosen);
  }
  if (!whole) rule.event(Event::Kind::Moved, from, first, first);
}

}  // namespace

/// Entries of one dimension.
bool choice(Rule& rule) {
  const at::Tensor from = rule.tensor(0);
  if (!from.defined() || from.dim() == 0 || from.layout() != at::kStrided) return false;
  const auto is = [&](std::string_view part) { return rule.name().find(part) != std::string_view::npos; };
  const int dim = static_cast<int>(from_front(int_at(rule.args(), is("split") || is("chunk") ? 2 : 1, 0), from.dim()));
  const bool drops = rule.name() == "select" || rule.name() == "unbind";
  if (dim < 0 || dim >= from.dim()) return false;
  const std::int64_t begin = begin_of(rule.output(), from, dim);
  DimSources axes = same_dims(from);
  if (drops) {
    axes.erase(axes.begin() + dim);
  } else if (dim < rule.output().dim() && rule.output().size(dim) != from.size(dim)) {
    at_dim(axes, dim) = {Kind::Chosen, {dim}, true, rule.output().size(dim), begin};
  }
  if (std::ssize(axes) != rule.output().dim()) return false;
  Link& link = rule.add(from, Way::Linear, std::move(axes));
  if (drops) link.chosen = dim, link.chosen_at = begin;
  return true;
}

/// index_select(x, dim, indices), and x[indices], x[:, indices], ...
bool indexing(Rule& rule) {
  const at::Tensor from = rule.tensor(0);
  if (!from.defined() || rule.args().size() < 2) return false;
  std::vector<at::Tensor> indices;
  int first = 0, at = 0;
  if (rule.args()[1].isInt()) {
    first = static_cast<int>(from_front(rule.args()[1].toInt(), from.dim()));
    if (rule.tensor(2).defined()) indices.push_back(rule.tensor(2));
  } else if (rule.args()[1].isList()) {
    for (const c10::IValue& value : rule.args()[1].toListRef()) {
      if (value.isTensor() && value.toTensor().defined()) {
        if (indices.empty()) first = at;
        if (at != first + std::ssize(indices)) return false;  // not side by side
        indices.push_back(value.toTensor());
      }
      ++at;
    }
  }
  if (indices.empty()) return false;
  count_indexed(rule, from, first, indices);
  return indices.size() == 1 && chosen_along(rule, from, first, indices[0]);
}

/// (self, dim, index): as index, and along other dimensions as self too.
bool gathering(Rule& rule) {
  const at::Tensor self = rule.tensor(0), index = rule.tensor(2);
  if (!self.defined() || !index.defined() || index.dim() != self.dim()) return false;
  const auto along = rule.dims_at(1, self);
  rule.counts(index, same_dims(index));
  DimSources axes = rule.broadcast(self);
  for (const int dim : along) at_dim(axes, dim) = {};
  rule.counts(self, std::move(axes));
  return true;
}

/// (self, dim, index, source): as self, and along other dimensions as what is written into it.
bool scattering(Rule& rule) {
  const at::Tensor self = rule.tensor(0);
  if (!self.defined()) return false;
  rule.counts(self, same_dims(self));
  for (const std::size_t place : {2, 3}) {
    const at::Tensor other = rule.tensor(place);
    if (!other.defined() || other.dim() != self.dim()) continue;
    DimSources axes = rule.broadcast(other);
    for (const int dim : rule.dims_at(1, self)) {
      at_dim(axes, dim) = {};
      rule.event(Event::Kind::Summed, other, dim);
    }
    rule.counts(other, std::move(axes));
  }
  return true;
}

/// index_put(self, indices, values), masked_scatter(self, mask, values): as self. Where values went is not followed.
bool filling(Rule& rule) {
  const at::Tensor self = rule.tensor(0), values = rule.tensor(2);
  if (!self.defined()) return false;
  rule.counts(self, same_dims(self));
  for (int dim = 0; values.defined() && dim < dims_of(values); ++dim) rule.event(Event::Kind::Summed, values, dim);
  return true;
}

/// repeat(x, times) and repeat_interleave(x, times, dim).
bool repetition(Rule& rule) {
  const at::Tensor from = rule.tensor(0);
  const bool uneven = rule.tensor(1).defined();  // some not at all, perhaps
  if (!from.defined() || from.dim() != rule.output().dim() || uneven) return false;
  DimSources axes = same_dims(from);
  for (int dim = 0; dim < dims_of(from); ++dim) {
    if (from.size(dim) == rule.output().size(dim)) continue;
    if (from.size(dim) == 0) return false;
    at_dim(axes, dim) = {Kind::Copied, {dim}};
  }
  rule.add(from, Way::Linear, std::move(axes));
  return true;
}

bool concatenation(Rule& rule) {
  const auto parts = tensors_at(rule.args(), 0);
  const bool stacks = rule.name() == "stack";
  const int dim = static_cast<int>(from_front(int_at(rule.args(), 1, 0), rule.output().dim()));
  if (parts.empty() || dim < 0 || dim >= rule.output().dim()) return false;
  if (stacks) rule.meaning.stacked_along = dim;
  for (const at::Tensor& part : parts) {
    if (!part.defined() || (!stacks && part.dim() != rule.output().dim())) continue;
    DimSources axes = same_dims(part);
    if (stacks) {
      axes.insert(axes.begin() + dim, DimSource{});
    } else {
      at_dim(axes, dim) = {Kind::Joined, {dim}};
    }
    rule.add(part, Way::Linear, std::move(axes)).keeps_constants = false;
  }
  return true;
}

// ---- over dimensions ----

namespace {

/// Over those dimensions of the first operand that stand at `place`, or over all.
Link& reduce(Rule& rule, Way way, std::size_t place) {
  const at::Tensor from = rule.tensor(0);
  const std::vector<int> over = rule.dims_at(place, from);
  for (const int dim : over) rule.event(Event::Kind::Summed, from, dim);
  return rule.add(from, way, over.empty() ? rule.none() : rule.reduced(from, over));
}

}  // namespace

bool reduction(Rule& rule) { return rule.tensor(0).defined() && (reduce(rule, Way::Linear, 1), true); }
bool counted_reduction(Rule& rule) { return rule.tensor(0).defined() && (reduce(rule, Way::Counts, 1), true); }
/// norm(x, order, dims)
bool length(Rule& rule) { return rule.tensor(0).defined() && (reduce(rule, Way::Other, 2), true); }

/// The largest along dimensions, or the larger of two tensors.
bool extreme(Rule& rule) {
  if (rule.tensor(1).defined()) return counted_entries(rule) && anything(rule);
  return rule.tensor(0).defined() && (reduce(rule, Way::Other, 1), true);
}

/// A variance over one dimension does not see a shift along it. With it may come the mean.
bool variance(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined()) return false;
  const auto dims = rule.dims_at(1, input);
  const bool one = dims.size() == 1, first = rule.place() == 0;
  Link& link = reduce(rule, first ? Way::Other : one ? Way::Linear : Way::Unknown, 1);
  if (one && first) link.sums_to_zero = dims[0];
  return true;
}

/// The gradient of a logarithm of a sum of exponentials and that of a part of it may cancel along a direction.
bool log_of_sum(Rule& rule) {
  if (!rule.tensor(0).defined()) return false;
  reduce(rule, Way::Counts, 1);
  rule.add(rule.tensor(0), Way::Unknown, {});
  return true;
}

// ---- along dimensions ----

namespace {

/// Entries are mixed, or come in another order, along dimensions of the first operand.
Link& mix(Rule& rule, Way way, const std::vector<int>& along) {
  DimSources axes = same_dims(rule.tensor(0));
  for (const int dim : along) at_dim(axes, dim) = {Kind::Mixed, {dim}};
  return rule.add(rule.tensor(0), way, std::move(axes));
}

Link* reorder(Rule& rule, Way way, const std::vector<int>& along) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined() || along.empty() || input.dim() == 0 || input.dim() != rule.output().dim()) return nullptr;
  for (const int dim : along) rule.event(Event::Kind::Moved, input, dim, dim);
  return &mix(rule, way, along);
}

}  // namespace

/// cumsum(x, dim): each entry goes into all behind it.
bool running(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined() || input.dim() != rule.output().dim() || input.dim() == 0) return false;
  const std::vector<int> along = rule.dims_at(1, input);
  if (along.empty()) return false;
  for (const int dim : along) rule.event(Event::Kind::Blended, input, dim);
  rule.counts(input, same_dims(input));
  mix(rule, Way::Linear, along).keeps_constants = false;
  return true;
}

/// Each entry goes into all along some dimensions: renorm(x, order, dim, most) scales each entry along one dimension by
/// all that it has, a Fourier transform is over a list of dimensions, which may change their sizes.
bool blended(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined() || input.dim() != rule.output().dim()) return false;
  const bool scales = rule.name() == "renorm";
  const auto listed = rule.dims_at(scales ? 2 : 1, input);
  DimSources axes = same_dims(input);
  for (int dim = 0; dim < dims_of(input); ++dim) {
    const bool is = std::find(listed.begin(), listed.end(), dim) != listed.end();
    if (is != scales) rule.event(Event::Kind::Blended, input, dim);
    if (is && !scales) at_dim(axes, dim) = {};
  }
  rule.counts(input, std::move(axes));
  return true;
}

/// Of matrices, which are the last two dimensions.
bool of_matrices(Rule& rule) {
  for (const at::Tensor& operand : rule.ended.operands) {
    DimSources axes = rule.none();
    for (int dim = 0; dim < std::min<int>(dims_of(operand) - 2, static_cast<int>(axes.size())); ++dim) {
      if (operand.size(dim) == rule.output().size(dim)) at_dim(axes, dim) = same_dim(dim);
    }
    rule.counts(operand, std::move(axes));
  }
  return true;
}

/// The same entries in another order: flip(x, dims) and roll(x, shifts, dims).
bool turned(Rule& rule) {
  return reorder(rule, Way::Linear, rule.dims_at(rule.name() == "roll" ? 2 : 1, rule.tensor(0))) != nullptr;
}

/// sort(x, dim) and sort(x, stable, dim), topk(x, k, dim).
bool sorted(Rule& rule) {
  std::vector<int> along;
  if (rule.name() != "topk") along = rule.dims_at(1, rule.tensor(0));
  if (along.empty()) along = rule.dims_at(2, rule.tensor(0));
  if (along.empty() && rule.tensor(0).defined()) along = {dims_of(rule.tensor(0)) - 1};
  return reorder(rule, Way::Other, along) != nullptr;
}

namespace {

/// True if a dimension, counted from the last, has a padding in a list of two for each.
bool any_at(Arguments args, std::size_t place, int dim) {
  const auto paddings = ints_at(args, place, 0);
  const std::size_t at = 2 * static_cast<std::size_t>(dim);
  return at + 1 < paddings.size() && (paddings[at] != 0 || paddings[at + 1] != 0);
}

}  // namespace

/// Along every dimension whose size changes, and those of space. Constants stay, but where zeros come in.
bool mixture(Rule& rule) {
  const at::Tensor from = rule.tensor(0);
  if (!from.defined() || from.dim() != rule.output().dim()) return false;
  const std::string_view name = rule.name();
  const bool pools = name.find("pool") != std::string_view::npos, pads = name.find("pad") != std::string_view::npos;
  const int space = pools ? static_cast<int>(name[name.size() - 2] - '0') : 0;
  std::vector<int> along;
  for (int dim = 0; dim < dims_of(from); ++dim) {
    const bool pooled = pools && dim >= dims_of(from) - space && from.size(dim) > 1;
    const bool padded = pads && any_at(rule.args(), 1, dims_of(from) - 1 - dim);
    if (pooled || padded || from.size(dim) != rule.output().size(dim)) along.push_back(dim);
  }
  Link& link = mix(rule, Way::Linear, along);
  const auto padding = name.starts_with("avg_pool") ? ints_at(rule.args(), 3, 1) : std::vector<std::int64_t>();
  link.keeps_constants = !pads && std::all_of(padding.begin(), padding.end(), [](std::int64_t p) { return p == 0; });
  const bool fills = number_at(rule.args(), name == "pad" ? 3 : 2, 0) != 0;
  return !(fills && name.ends_with(name == "pad" ? "pad" : "constant_pad_nd"));
}

/// Of one tensor, in a way that may give any rank: other dimensions stay where they are if their sizes do.
bool anything(Rule& rule) {
  for (std::size_t i = 0; i < rule.ended.operands.size(); ++i) {
    const at::Tensor& tensor = rule.ended.operands[i];
    rule.add(tensor, i == 0 ? Way::Other : Way::Hidden, i == 0 ? rule.leading(tensor) : rule.none());
  }
  return !rule.ended.operands.empty();
}

}  // namespace dds::hooks::rules
