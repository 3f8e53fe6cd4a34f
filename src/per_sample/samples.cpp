#include "src/per_sample/samples.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace dds::hooks {
namespace {

/// Place of each scattered row among those of its sample.
at::Tensor ranks(const at::Tensor& owner, std::int64_t samples) {
  const at::Tensor order = at::argsort(owner, /*stable=*/true, 0, false);
  const at::Tensor counts = at::bincount(owner, {}, samples);
  const at::Tensor starts = counts.cumsum(0).sub(counts);
  const at::Tensor sorted_rank =
      at::arange(owner.size(0), owner.options()) - starts.index_select(0, owner).index_select(0, order);
  return at::zeros({owner.size(0)}, owner.options()).scatter(0, order, sorted_rank);
}

}  // namespace

at::Tensor by_sample(const at::Tensor& tensor, std::int64_t dim, const SampleRows& rows) {
  using Order = SampleRows::Order;
  const std::int64_t n = rows.samples;
  switch (rows.order) {
    case Order::Whole: {
      if (n == 1) return tensor.unsqueeze(0).unsqueeze(0);
      std::vector<std::int64_t> shape = tensor.sizes().vec();
      shape.insert(shape.begin(), {n, 1});
      return at::zeros(shape, tensor.options()).index_copy(0, rows.owner, tensor.unsqueeze(0).unsqueeze(0));
    }
    case Order::SampleMajor:
      return tensor.movedim(dim, 0).unflatten(0, {n, tensor.size(dim) / n});
    case Order::PositionMajor:
      return tensor.movedim(dim, 0).unflatten(0, {tensor.size(dim) / n, n}).transpose(0, 1);
    case Order::Scattered:
      break;
  }
  const at::Tensor front = tensor.movedim(dim, 0);
  const at::Tensor rank = ranks(rows.owner, n);
  const std::int64_t most = rank.max().item<std::int64_t>() + 1;
  std::vector<std::int64_t> shape = front.sizes().vec();
  shape[0] = n * most;
  return at::zeros(shape, tensor.options())
      .index_copy(0, rows.owner.mul(most).add(rank), front)
      .unflatten(0, {n, most});
}

at::Tensor rows_of(const at::Tensor& tensor, const SampleRows& rows, const std::vector<std::int64_t>& features) {
  const bool whole = rows.order == SampleRows::Order::Whole;
  std::vector<std::int64_t> order{0, 1};
  std::int64_t width = 1;
  const auto is_feature = [&](std::int64_t dim) {
    return std::find(features.begin(), features.end(), dim) != features.end();
  };
  const auto moved = [&](std::int64_t dim) { return whole || dim > rows.dim ? dim + (whole ? 2 : 1) : dim + 2; };
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if ((whole || dim != rows.dim) && !is_feature(dim)) order.push_back(moved(dim));
  }
  for (const std::int64_t dim : features) {
    order.push_back(moved(dim));
    width *= tensor.size(dim);
  }
  return by_sample(tensor, rows.dim, rows).permute(order).reshape({rows.samples, 1, -1, width});
}

at::Tensor owners(const SampleRows& rows, std::int64_t count, const at::TensorOptions& options) {
  using Order = SampleRows::Order;
  const at::Tensor entries = at::arange(count, options);
  switch (rows.order) {
    case Order::SampleMajor:
      return entries.div(count / rows.samples, "floor");
    case Order::PositionMajor:
      return entries.remainder(rows.samples);
    case Order::Whole:
      return rows.owner.expand({count});
    case Order::Scattered:
      break;
  }
  return rows.owner;
}

at::Tensor telling_weights(std::int64_t samples, const at::TensorOptions& options) {
  // The golden ratio's multiples spread over the unit interval with no two closer than 0.38 / n.
  constexpr double kGolden = 0.6180339887498949;
  return at::arange(samples, options.dtype(at::kDouble)).mul(kGolden).frac().add(1).to(options);
}

std::optional<SampleRows> measure_samples(const at::Tensor& gradient, const at::Tensor& weighted,
                                          const at::Tensor& weights, const std::vector<std::int64_t>& dims) {
  using Order = SampleRows::Order;
  const std::int64_t n = weights.numel();
  const at::Tensor &g = gradient, &w = weighted, &weight = weights;
  const double scale = g.norm().item<double>();
  // Between two weights lies at least 0.38 / n; half of that decides.
  const double tolerance = 0.1 / static_cast<double>(n);
  const auto explained = [&](const at::Tensor& row_weights, std::int64_t dim) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(g.dim()), 1);
    shape[static_cast<std::size_t>(dim)] = -1;
    return (w - g * row_weights.reshape(shape)).norm().item<double>() <= tolerance * scale;
  };
  for (const std::int64_t dim : dims) {
    if (g.size(dim) % n != 0) continue;
    const std::int64_t k = g.size(dim) / n;
    if (explained(weight.repeat_interleave(k), dim)) return SampleRows{Order::SampleMajor, n, dim, {}};
    if (explained(weight.repeat({k}), dim)) return SampleRows{Order::PositionMajor, n, dim, {}};
  }
  // A call of one sample alone.
  const at::Tensor whole = (g * w).sum().div(scale * scale).sub(weight).abs().argmin().unsqueeze(0);
  if (explained(weight.index_select(0, whole).expand({g.dim() > 0 ? g.size(0) : 1}), 0)) {
    return SampleRows{Order::Whole, n, 0, whole};
  }
  for (const std::int64_t dim : dims) {
    const at::Tensor rows = g.movedim(dim, 0).reshape({g.size(dim), -1});
    const at::Tensor others = w.movedim(dim, 0).reshape({g.size(dim), -1});
    const at::Tensor square = (rows * rows).sum(1);
    const at::Tensor ratio = at::where(square > 0, (rows * others).sum(1) / square, weight[0]);
    const at::Tensor owner = (ratio.unsqueeze(1) - weight.unsqueeze(0)).abs().argmin(1);
    if (explained(weight.index_select(0, owner), dim)) return SampleRows{Order::Scattered, n, dim, owner};
  }
  return std::nullopt;
}

}  // namespace dds::hooks
