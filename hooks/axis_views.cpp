// Which dimensions of a tensor those of a view of it are.
#include "hooks/axis_views.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

namespace dds::hooks {
namespace {

using Ids = Axes::Ids;

/// The dimensions of sizes that `sizes` and `others`, both in the order of memory, are products of: (6, 4) and (2, 12)
/// are both of (2, 3, 4). Empty if there are none.
std::vector<std::int64_t> common_factors(at::IntArrayRef sizes, at::IntArrayRef others) {
  std::vector<std::int64_t> factors;
  std::int64_t left = 1, right = 1;  // of the dimensions that are at hand, what no factor stands for yet
  for (std::size_t i = 0, k = 0; i < sizes.size() || k < others.size() || left > 1 || right > 1;) {
    if (left == 1 && i < sizes.size()) {
      left = sizes[i++];
    } else if (right == 1 && k < others.size()) {
      right = others[k++];
    } else {
      const std::int64_t factor = std::min(left, right);
      if (factor < 2 || left % factor != 0 || right % factor != 0) return {};
      factors.push_back(factor);
      left /= factor;
      right /= factor;
    }
  }
  return factors;
}

/// How many factors from `next` on make up `size`.
std::size_t count_of(const std::vector<std::int64_t>& factors, std::size_t next, std::int64_t size) {
  std::size_t count = 0;
  for (; size > 1; size /= factors[next + count++]) {
  }
  return count;
}

/// By sizes and steps in memory. A step of 0 repeats.
Ids matched(const at::Tensor& whole, const at::Tensor& view, const Ids& ids, Axes& axes) {
  Ids result = axes.add(view.dim(), axes.have_data(ids));
  const bool shifted = whole.numel() == view.numel() && whole.storage_offset() != view.storage_offset();
  for (std::size_t d = 0; d < result.size() && !shifted; ++d) {
    const std::int64_t size = view.sizes()[d], step = view.strides()[d];
    Ids found;
    for (std::size_t i = 0; size > 1 && step != 0 && i < ids.size(); ++i) {
      if (whole.sizes()[i] == size && whole.strides()[i] == step) found.push_back(ids[i]);
    }
    if (found.size() == 1) result[d] = found.front();
  }
  return result;
}

}  // namespace

std::optional<Ids> axes_of_reshaped(at::IntArrayRef sizes, at::IntArrayRef others, const Ids& ids, Axes& axes) {
  const auto factors = common_factors(sizes, others);
  if (factors.empty()) return std::nullopt;
  const auto from = [&](std::size_t next, std::size_t count) {
    const auto begin = factors.begin() + static_cast<std::ptrdiff_t>(next);
    return std::vector<std::int64_t>(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  Ids parts;
  for (std::size_t d = 0; d < ids.size(); ++d) {
    const std::size_t count = count_of(factors, parts.size(), sizes[d]);
    if (count == 1) parts.push_back(ids[d]);
    if (count < 2) continue;
    for (const Axes::Id part : axes.split(ids[d], from(parts.size(), count))) parts.push_back(part);
  }
  Ids result;
  std::size_t next = 0;
  for (const std::int64_t size : others) {
    const std::size_t count = count_of(factors, next, size);
    if (count == 0) result.push_back(axes.add(1, axes.have_data(ids)).front());
    if (count == 1) result.push_back(parts[next]);
    if (count > 1) {
      const auto begin = parts.begin() + static_cast<std::ptrdiff_t>(next);
      result.push_back(axes.merged({begin, begin + static_cast<std::ptrdiff_t>(count)}, from(next, count)));
    }
    next += count;
  }
  return result;
}

Ids axes_of_view(std::string_view name, const at::Tensor& whole, const at::Tensor& view, const Ids& ids, Axes& axes) {
  if (whole.scalar_type() != view.scalar_type()) {  // the parts of complex numbers stand in the last dimension
    Ids result = axes.add(view.dim(), axes.have_data(ids));
    const bool parts = name == "view_as_real" || name == "view_as_complex";
    for (std::size_t d = 0; parts && d < std::min(ids.size(), result.size()); ++d) result[d] = ids[d];
    return result;
  }
  const bool same_order = whole.numel() == view.numel() && whole.is_contiguous() && view.is_contiguous();
  auto result = same_order ? axes_of_reshaped(whole.sizes(), view.sizes(), ids, axes) : std::nullopt;
  return result ? *result : matched(whole, view, ids, axes);
}

}  // namespace dds::hooks
