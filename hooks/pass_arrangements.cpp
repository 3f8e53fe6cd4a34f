// Rules for operators that arrange the entries of a tensor, or mix them along single dimensions.
#include <ATen/ops/_unique.h>

#include <algorithm>
#include <numeric>

#include "hooks/features.hpp"
#include "hooks/pass_rule.hpp"

namespace dds::hooks {
namespace {

using Kind = Axis::Kind;

int positive(std::int64_t dim, std::int64_t rank) { return static_cast<int>(from_front(dim, rank)); }

std::vector<Axis> same_axes(const at::Tensor& tensor) {
  std::vector<Axis> axes(static_cast<std::size_t>(tensor.dim()));
  for (int dim = 0; dim < static_cast<int>(tensor.dim()); ++dim) {
    if (varies(tensor, dim)) axes[static_cast<std::size_t>(dim)] = {Kind::Same, {dim}};
  }
  return axes;
}

// ---- views ----

std::vector<int> long_dimensions(const at::Tensor& tensor, int first) {
  std::vector<int> dims;
  for (int dim = first; dim < static_cast<int>(tensor.dim()); ++dim) {
    if (tensor.size(dim) != 1) dims.push_back(dim);
  }
  return dims;
}

/// The same entries in the same order: runs of dimensions of the operand that are runs of the result's.
bool reshape(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined() || from.numel() != rule.output.numel()) return false;
  std::vector<Axis> axes(static_cast<std::size_t>(rule.output.dim()));
  int equal = 0;  // dimensions at the front that stay, a batch of one among them
  while (equal < std::min(from.dim(), rule.output.dim()) && from.size(equal) == rule.output.size(equal)) {
    if (varies(from, equal)) axes[static_cast<std::size_t>(equal)] = {Kind::Same, {equal}};
    ++equal;
  }
  const std::vector<int> old = long_dimensions(from, equal), now = long_dimensions(rule.output, equal);
  std::size_t i = 0, j = 0;
  while (from.numel() > 0 && i < old.size() && j < now.size()) {
    std::vector<int> before{old[i]}, after{now[j]};
    std::int64_t a = from.size(old[i++]), b = rule.output.size(now[j++]);
    while (a != b) {
      if (a < b) {
        before.push_back(old[i]);
        a *= from.size(old[i++]);
      } else {
        after.push_back(now[j]);
        b *= rule.output.size(now[j++]);
      }
    }
    const Kind kind = after.size() > 1    ? (before.size() > 1 ? Kind::Mixed : Kind::Part)
                      : before.size() > 1 ? Kind::Merged
                                          : Kind::Same;
    for (const int dim : after) axes[static_cast<std::size_t>(dim)] = {kind, before};
  }
  rule.add(from, Link::Way::Linear, std::move(axes));
  return true;
}

bool permutation(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined()) return false;
  std::vector<std::int64_t> order(static_cast<std::size_t>(from.dim()));
  std::iota(order.begin(), order.end(), 0);
  if (rule.run.name == "permute") {
    if (rule.args().size() < 2 || !rule.args()[1].isIntList()) return false;
    order = rule.args()[1].toIntVector();
  } else if (rule.run.name == "t") {
    std::reverse(order.begin(), order.end());
  } else {
    if (rule.args().size() < 3 || !rule.args()[1].isInt()) return false;
    if (from.dim() == 0) return false;
    std::swap(order[static_cast<std::size_t>(positive(int_at(rule.args(), 1, 0), from.dim()))],
              order[static_cast<std::size_t>(positive(int_at(rule.args(), 2, 0), from.dim()))]);
  }
  if (std::ssize(order) != rule.output.dim()) return false;
  std::vector<Axis> axes(order.size());
  for (std::size_t dim = 0; dim < order.size(); ++dim) {
    const int own = positive(order[dim], from.dim());
    if (varies(from, own)) axes[dim] = {Kind::Same, {own}};
  }
  rule.add(from, Link::Way::Linear, std::move(axes));
  return true;
}

bool expansion(Rule& rule) {
  rule.add(tensor_at(rule.args(), 0));
  return true;
}

// ---- choices ----

/// The entry of a dimension with which a view begins. -1 if it is no such view.
std::int64_t begin_of(const at::Tensor& view, const at::Tensor& whole, int dim) {
  const std::int64_t stride = whole.stride(dim), offset = view.storage_offset() - whole.storage_offset();
  const bool steps = view.dim() == whole.dim() && view.size(dim) > 1 && view.stride(dim) != stride;
  return stride <= 0 || offset < 0 || offset % stride != 0 || steps ? -1 : offset / stride;
}

/// Entries of one dimension.
bool choice(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined() || from.dim() == 0) return false;
  const bool splits =
      rule.run.name.find("split") != std::string_view::npos || rule.run.name.find("chunk") != std::string_view::npos;
  const std::size_t place = splits ? 2 : 1;
  const int dim = positive(int_at(rule.args(), place, 0), from.dim());
  const bool drops = rule.run.name == "select" || rule.run.name == "unbind";
  if (dim < 0 || dim >= from.dim() || from.layout() != at::kStrided) return false;
  const std::int64_t begin = begin_of(rule.output, from, dim);
  std::vector<Axis> axes;
  for (int own = 0; own < static_cast<int>(from.dim()); ++own) {
    if (own == dim) {
      if (drops) continue;
      const std::int64_t used = rule.output.size(own);
      axes.push_back(used == from.size(own) ? Axis{Kind::Same, {own}} : Axis{Kind::Chosen, {own}, true, used, begin});
    } else {
      axes.push_back(varies(from, own) ? Axis{Kind::Same, {own}} : Axis{});
    }
  }
  if (static_cast<std::int64_t>(axes.size()) != rule.output.dim()) return false;
  Link& link = rule.add(from, Link::Way::Linear, std::move(axes));
  if (drops) link.chosen = dim, link.chosen_at = begin;
  return true;
}

/// Indices: how many different ones there are.
std::int64_t different(const at::Tensor& indices) {
  if (indices.scalar_type() == at::kBool) return indices.sum().item<std::int64_t>();
  return std::get<0>(at::_unique(indices)).numel();
}

/// index_select(x, dim, indices), and x[indices], x[:, indices], ...: with indices along one dimension.
bool indexing(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined() || rule.args().size() < 2) return false;
  int dim = -1;
  at::Tensor indices;
  if (rule.args()[1].isOptionalTensorList()) {
    const auto all = rule.args()[1].toOptionalTensorVector();
    for (int i = 0; i < static_cast<int>(all.size()); ++i) {
      if (!all[static_cast<std::size_t>(i)] || !all[static_cast<std::size_t>(i)]->defined()) continue;
      if (indices.defined()) return false;
      dim = i;
      indices = *all[static_cast<std::size_t>(i)];
    }
  } else {
    dim = positive(int_at(rule.args(), 1, 0), from.dim());
    indices = tensor_at(rule.args(), 2);
  }
  if (!indices.defined() || indices.dim() != 1 || from.dim() != rule.output.dim() || dim >= from.dim()) return false;
  std::vector<Axis> axes = same_axes(from);
  axes[static_cast<std::size_t>(dim)] = {Kind::Chosen, {dim}, true, different(indices)};
  rule.add(from, Link::Way::Linear, std::move(axes));
  rule.hide(indices);
  return true;
}

/// repeat(x, times) and repeat_interleave(x, times, dim).
bool repetition(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined() || from.dim() != rule.output.dim()) return false;
  std::vector<Axis> axes = same_axes(from);
  for (int dim = 0; dim < static_cast<int>(from.dim()); ++dim) {
    const bool same = from.size(dim) == rule.output.size(dim);
    if (!same && from.size(dim) == 0) return false;
    if (!same) axes[static_cast<std::size_t>(dim)] = {Kind::Copied, {dim}};
  }
  rule.add(from, Link::Way::Linear, std::move(axes));
  return true;
}

bool concatenation(Rule& rule) {
  const auto parts = tensors_at(rule.args(), 0);
  const bool stacks = rule.run.name == "stack";
  const int dim = positive(int_at(rule.args(), 1, 0), rule.output.dim());
  if (parts.empty() || dim < 0 || dim >= rule.output.dim()) return false;
  if (stacks) rule.node.stacked_along = dim;
  for (const at::Tensor& part : parts) {
    if (!part.defined() || (!stacks && part.dim() != rule.output.dim())) continue;
    std::vector<Axis> axes = same_axes(part);
    if (stacks) {
      axes.insert(axes.begin() + dim, Axis{});
    } else {
      axes[static_cast<std::size_t>(dim)] = {Kind::Joined, {dim}};
    }
    rule.add(part, Link::Way::Linear, std::move(axes)).keeps_constants = false;
  }
  return true;
}

// ---- mixtures ----

bool reduction(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined()) return false;
  std::vector<std::int64_t> dims = ints_at(rule.args(), 1, 1);
  const bool all = dims.empty(), keeps = bool_at(rule.args(), 2, false);
  for (std::int64_t& dim : dims) dim = positive(dim, from.dim());
  std::vector<Axis> axes;
  for (int dim = 0; dim < static_cast<int>(from.dim()); ++dim) {
    if (all || std::find(dims.begin(), dims.end(), dim) != dims.end()) {
      if (keeps) axes.emplace_back();
    } else {
      axes.push_back(varies(from, dim) ? Axis{Kind::Same, {dim}} : Axis{});
    }
  }
  axes.resize(static_cast<std::size_t>(rule.output.dim()));
  rule.add(from, Link::Way::Linear, std::move(axes));
  return true;
}

/// Along every dimension whose size or order changes. Constants stay, but where zeros come in.
bool mixture(Rule& rule) {
  const at::Tensor from = tensor_at(rule.args(), 0);
  if (!from.defined() || from.dim() != rule.output.dim()) return false;
  const bool fills = number_at(rule.args(), rule.run.name == "pad" ? 3 : 2, 0) != 0;
  if (fills && rule.run.name.ends_with(rule.run.name == "pad" ? "pad" : "constant_pad_nd")) return false;
  const bool orders = rule.run.name == "flip" || rule.run.name == "roll" || rule.run.name == "cumsum";
  const bool pools = rule.run.name.find("pool") != std::string_view::npos;
  std::vector<std::int64_t> dims;
  if (orders) dims = ints_at(rule.args(), rule.run.name == "roll" ? 2 : 1, 1);
  if (orders && dims.empty()) return false;
  for (std::int64_t& dim : dims) dim = positive(dim, from.dim());
  const int space = pools ? static_cast<int>(rule.run.name[rule.run.name.size() - 2] - '0') : 0;
  std::vector<Axis> axes = same_axes(from);
  for (int dim = 0; dim < static_cast<int>(from.dim()); ++dim) {
    const bool moved = from.size(dim) != rule.output.size(dim) ||
                       std::find(dims.begin(), dims.end(), dim) != dims.end() ||
                       (pools && dim >= static_cast<int>(from.dim()) - space && from.size(dim) > 1);
    if (moved) axes[static_cast<std::size_t>(dim)] = {Kind::Mixed, {dim}};
  }
  Link& link = rule.add(from, Link::Way::Linear, std::move(axes));
  const bool pads = rule.run.name.find("pad") != std::string_view::npos;
  const auto padding = rule.run.name.starts_with("avg_pool") ? ints_at(rule.args(), 3, 1) : std::vector<std::int64_t>();
  link.keeps_constants = !pads && rule.run.name != "cumsum" &&
                         std::all_of(padding.begin(), padding.end(), [](std::int64_t p) { return p == 0; });
  return true;
}

}  // namespace

void add_arrangements(Rules& rules) {
  rules.add(reshape, {"view", "reshape", "_reshape_alias", "_unsafe_view", "flatten", "unflatten", "unsqueeze",
                      "squeeze", "view_as", "reshape_as", "ravel"});
  rules.add(permutation, {"permute", "transpose", "t", "swapaxes", "swapdims"});
  rules.add(expansion, {"expand", "expand_as", "broadcast_to"});
  rules.add(choice, {"select", "narrow", "slice", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
                     "unsafe_split", "unsafe_chunk"});
  rules.add(indexing, {"index", "index_select"});
  rules.add(repetition, {"repeat", "repeat_interleave"});
  rules.add(concatenation, {"cat", "concat", "concatenate", "stack"});
  rules.add(reduction, {"sum", "mean"});
  rules.add(mixture, {"flip",
                      "roll",
                      "cumsum",
                      "constant_pad_nd",
                      "pad",
                      "reflection_pad1d",
                      "reflection_pad2d",
                      "replication_pad1d",
                      "replication_pad2d",
                      "avg_pool1d",
                      "avg_pool2d",
                      "avg_pool3d",
                      "adaptive_avg_pool1d",
                      "adaptive_avg_pool2d",
                      "adaptive_avg_pool3d",
                      "upsample_nearest1d",
                      "upsample_nearest2d",
                      "upsample_nearest3d",
                      "upsample_linear1d",
                      "upsample_bilinear2d",
                      "upsample_bicubic2d",
                      "upsample_trilinear3d"});
}

}  // namespace dds::hooks
