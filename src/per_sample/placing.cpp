#include "src/per_sample/placing.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <utility>

namespace dds::hooks {
namespace {

/// Axes as one: entries in their order at multiples of one stride. Empty if they are not.
std::optional<Axis> joined(const std::vector<Axis>& axes) {
  Axis result{1, 1};
  for (std::size_t i = axes.size(); i-- > 0;) {
    if (axes[i].size == 1) continue;
    if (result.size == 1) {
      result = axes[i];
    } else if (axes[i].stride == result.size * result.stride) {
      result.size *= axes[i].size;
    } else {
      return std::nullopt;
    }
  }
  return result;
}

bool in_order(const std::vector<std::vector<Axis>*>& groups) {
  std::int64_t step = 1;
  for (std::size_t i = groups.size(); i-- > 0;) {
    const auto axis = joined(*groups[i]);
    if (!axis || (axis->size > 1 && axis->stride != step)) return false;
    step *= axis->size;
  }
  return true;
}

std::int64_t size_of(const std::vector<Axis>& axes) {
  std::int64_t size = 1;
  for (const Axis& axis : axes) size *= axis.size;
  return size;
}

}  // namespace

Term place(std::variant<Product, Lookup, Sum, Dense> form, const std::vector<Axis>& axes, std::int64_t offset,
           std::int64_t numel) {
  std::vector<Axis> all = axes;
  const std::int64_t size = size_of(axes);
  Term term{std::move(form), offset, size};
  if (in_order({&all})) return term;
  // The index in memory of every entry.
  at::Tensor whole = std::visit([&](const auto& f) { return entries_of(f, 0, size, INT64_MAX); }, term.form);
  at::Tensor index = at::arange(1, whole.options().dtype(at::kLong));
  for (const Axis& axis : axes) {
    index = index.unsqueeze(-1).add(at::arange(axis.size, index.options()).mul(axis.stride)).flatten();
  }
  const at::Tensor rows =
      at::zeros({whole.size(0), numel}, whole.options()).index_add(1, index.add(offset), whole.contiguous());
  return {Dense{rows}, 0, numel};
}

Term place_product(Product product, std::vector<Axis> groups, std::vector<Axis> rows, std::vector<Axis> columns,
                   std::int64_t offset, std::int64_t numel) {
  if (in_order({&groups, &columns, &rows})) {
    std::swap(product.left, product.right);
    std::swap(rows, columns);
  }
  std::vector<Axis> axes = std::move(groups);
  axes.insert(axes.end(), rows.begin(), rows.end());
  axes.insert(axes.end(), columns.begin(), columns.end());
  return place(std::move(product), axes, offset, numel);
}

}  // namespace dds::hooks
