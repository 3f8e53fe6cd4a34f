#include "src/per_sample/uses.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace dds::hooks {
namespace {

using Dims = std::vector<std::int64_t>;

constexpr std::int64_t kAnyBytes = std::numeric_limits<std::int64_t>::max();

constexpr const char* kComputedWeight =
    "its weight is computed from parameters; per_sample_gradients of the model, which keeps the graph, follows it";

std::vector<Axis> axes_of(const at::Tensor& tensor, const Dims& dims) {
  std::vector<Axis> axes;
  for (const std::int64_t dim : dims) axes.push_back({tensor.size(dim), tensor.stride(dim)});
  return axes;
}

std::vector<Axis> axes_from(const at::Tensor& tensor, std::int64_t first) {
  std::vector<Axis> axes;
  for (std::int64_t dim = first; dim < tensor.dim(); ++dim) axes.push_back({tensor.size(dim), tensor.stride(dim)});
  return axes;
}

/// The gradients of each sample that a product makes, (n, the shape of `operand`). Its entries are those of the operand
/// in the order of the dimensions `order`. Along all others the operand repeats: all lies at the first place there.
at::Tensor written_out(Product product, const at::Tensor& operand, const Dims& order) {
  Dims sizes{product.left.samples()}, sorted = order;
  std::int64_t numel = 1;
  for (const std::int64_t dim : order) {
    sizes.push_back(operand.size(dim));
    numel *= operand.size(dim);
  }
  std::sort(sorted.begin(), sorted.end());
  Dims back{0};
  for (const std::int64_t dim : sorted) back.push_back(std::find(order.begin(), order.end(), dim) - order.begin() + 1);
  Terms terms(product.left.samples(), numel);
  terms.add({std::move(product), 0, numel});
  at::Tensor gradients = terms.entries(0, numel, kAnyBytes).reshape(sizes).permute(back);
  for (std::int64_t dim = 0; dim < operand.dim(); ++dim) {
    if (std::find(order.begin(), order.end(), dim) != order.end()) continue;
    gradients = gradients.unsqueeze(dim + 1);
    Dims shape = gradients.sizes().vec();
    shape[static_cast<std::size_t>(dim) + 1] = operand.size(dim);
    at::Tensor whole = at::zeros(shape, gradients.options());
    whole.narrow(dim + 1, 0, 1).copy_(gradients);
    gradients = whole;
  }
  return gradients;
}

}  // namespace

std::optional<ParameterIndex::Place> Uses::place_of(const at::Tensor& operand) const {
  const auto place = parameters_.find(operand);
  if (!place) return place;
  const at::Tensor& parameter = parameters_.tensor(place->number);
  const bool same = operand.scalar_type() == parameter.scalar_type() && operand.is_conj() == parameter.is_conj() &&
                    operand.is_neg() == parameter.is_neg();
  return same ? place : std::nullopt;
}

void Uses::mark(StatusSet status, std::string detail) {
  status_ |= status;
  if (detail_.empty()) detail_ = std::move(detail);
}

void Uses::add(const at::Tensor& operand, std::variant<Product, Lookup, Sum, Dense> form) {
  if (!operand.defined()) return;
  if (const auto view = place_of(operand)) {
    placed_.push_back({view->number, place(std::move(form), axes_from(operand, 0), view->offset, view->numel)});
  } else if (operand.requires_grad()) {
    Terms terms(0, operand.numel());
    terms.add({std::move(form), 0, operand.numel()});
    const at::Tensor rows = terms.entries(0, operand.numel(), kAnyBytes);
    Dims shape = operand.sizes().vec();
    shape.insert(shape.begin(), rows.size(0));
    derived_.push_back({operand, rows.reshape(shape)});
  } else if (parameters_.find(operand)) {
    mark(Status::NotReplayable, kComputedWeight);
  }
}

void Uses::add_product(const at::Tensor& operand, Product product) {
  const auto view = place_of(operand);
  if (!view && operand.requires_grad()) return add(operand, std::move(product));
  if (!view) return mark(Status::NotReplayable, kComputedWeight);
  const std::int64_t groups = product.left.groups(), stride = operand.stride(0), rows = operand.size(0) / groups;
  placed_.push_back({view->number, place_product(std::move(product), {{groups, rows * stride}}, {{rows, stride}},
                                                 axes_from(operand, 1), view->offset, view->numel)});
}

void Uses::add_product(const at::Tensor& operand, Product product, const Dims& groups, const Dims& rows,
                       const Dims& columns) {
  if (const auto view = place_of(operand)) {
    placed_.push_back({view->number, place_product(std::move(product), axes_of(operand, groups), axes_of(operand, rows),
                                                   axes_of(operand, columns), view->offset, view->numel)});
    return;
  }
  if (!operand.requires_grad()) return mark(Status::NotReplayable, kComputedWeight);
  Dims order = groups;
  order.insert(order.end(), rows.begin(), rows.end());
  order.insert(order.end(), columns.begin(), columns.end());
  derived_.push_back({operand, written_out(std::move(product), operand, order)});
}

}  // namespace dds::hooks
