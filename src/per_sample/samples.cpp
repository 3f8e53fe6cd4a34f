#include "src/per_sample/samples.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

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

constexpr std::int64_t kNoDim = -1;  // of SampleMeasurement::Along: all rows as one
constexpr double kApart = 1e30;      // stands for a difference that is no number

/// Entries of a gradient below it have lost bits to underflow.
double smallest_measured(at::ScalarType type) {
  if (type == at::kDouble || type == at::kComplexDouble) return 1e-290;
  return type == at::kHalf ? 1e-6 : 1e-30;
}

struct Tolerances {
  double rounding;  ///< between two runs of an operator that adds in no fixed order
  double mixing;    ///< the share of other samples in a row that is let pass
};

Tolerances tolerances(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
    case at::kComplexDouble:
      return {1e-15, 1e-9};
    case at::kFloat:
    case at::kComplexFloat:
      return {5e-7, 1e-4};
    default:
      return {3e-2, 3e-2};
  }
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

TellingWeights::TellingWeights(std::int64_t samples, bool narrow)
    : base_(narrow ? 4 : 16), passes_(2), codes_(static_cast<std::size_t>(samples)) {
  // A second pass for the least: rows of several samples that look like those of one by chance do not do so twice.
  std::int64_t told = base_ * base_;
  for (; told < samples; told *= base_) ++passes_;
  std::iota(codes_.begin(), codes_.end(), 0);
  std::mt19937_64 generator(1);
  for (std::size_t i = codes_.size(); i > 1; --i) std::swap(codes_[i - 1], codes_[generator() % i]);
}

std::int64_t TellingWeights::digit(std::int64_t code, std::int64_t pass) const {
  const std::int64_t first = code % base_;
  if (pass == 0) return first;
  for (std::int64_t p = 0; p < pass; ++p) code /= base_;
  // Less the first digit, which turns the order of the samples round: what weighs little in one pass weighs much in
  // another.
  return (code % base_ + base_ - first) % base_;
}

at::Tensor TellingWeights::weights(std::int64_t pass, const at::TensorOptions& options) const {
  std::vector<double> result;
  for (const std::int64_t code : codes_) {
    result.push_back(std::ldexp(1.0, static_cast<int>(digit(code, pass) + lowest())));
  }
  return at::tensor(result, at::kDouble).to(options);
}

at::Tensor TellingWeights::inverse(const at::Tensor& exponent, const at::TensorOptions& options) const {
  std::vector<double> powers;
  for (std::int64_t e = lowest(); e <= highest(); ++e) powers.push_back(std::ldexp(1.0, static_cast<int>(-e)));
  return at::tensor(powers, at::kDouble).to(options).take(exponent.sub(lowest()));
}

at::Tensor TellingWeights::samples_by_code(const at::TensorOptions& options) const {
  std::int64_t count = 1;
  for (std::int64_t pass = 0; pass < passes_; ++pass) count *= base_;
  std::vector<std::int64_t> samples(static_cast<std::size_t>(count), -1);
  for (std::size_t i = 0; i < codes_.size(); ++i) {
    std::int64_t whole = 0;
    for (std::int64_t pass = 0; pass < passes_; ++pass) whole = whole * base_ + digit(codes_[i], pass);
    samples[static_cast<std::size_t>(whole)] = static_cast<std::int64_t>(i);
  }
  return at::tensor(samples, at::kLong).to(options.dtype(at::kLong));
}

SampleMeasurement::SampleMeasurement(at::Tensor gradient, std::vector<std::int64_t> dims)
    : gradient_(std::move(gradient)) {
  if (dims.empty()) dims = {kNoDim};
  for (const std::int64_t dim : dims) {
    const std::int64_t count = dim == kNoDim ? 1 : gradient_.size(dim);
    along_.push_back({dim, at::zeros({count}, gradient_.options().dtype(at::kLong)), true, 0});
  }
}

/// Real numbers, a row for each entry of the dimension.
at::Tensor SampleMeasurement::as_rows(const at::Tensor& tensor, const Along& along) const {
  at::Tensor rows = along.dim == kNoDim ? tensor.unsqueeze(0) : tensor.movedim(along.dim, 0);
  if (rows.is_complex()) rows = at::view_as_real(rows.resolve_conj());
  if (rows.scalar_type() != at::kDouble) rows = rows.to(at::kFloat);
  return rows.reshape({along.code.size(0), -1});
}

void SampleMeasurement::add(const at::Tensor& weighted, const TellingWeights& weights) {
  const double tiny = smallest_measured(gradient_.scalar_type());
  for (Along& along : along_) {
    const at::Tensor all = as_rows(gradient_, along), finite = at::isfinite(all);
    if (all.numel() == 0) continue;
    const at::Tensor g = at::where(finite, all, 0), w = at::where(finite, as_rows(weighted, along), 0);
    const auto [largest, place] = g.abs().max(1, /*keepdim=*/true);
    const at::Tensor ratio = w.gather(1, place).div(g.gather(1, place)).to(at::kDouble);
    const at::Tensor exponent =
        at::nan_to_num(ratio.log2().round(), 0.0)
            .clamp(static_cast<double>(weights.lowest()), static_cast<double>(weights.highest()))
            .masked_fill(largest.eq(0), static_cast<double>(weights.lowest()))
            .to(at::kLong);
    const at::Tensor apart =
        at::nan_to_num(w.mul(weights.inverse(exponent, w.options())).sub(g).abs(), kApart).amax(1, /*keepdim=*/true);
    const at::Tensor share = apart.to(at::kDouble).sub(tiny).clamp_min(0).div(largest.to(at::kDouble).clamp_min(tiny));
    along.exact = along.exact && apart.max().item<double>() == 0;
    along.apart = std::max(along.apart, share.max().item<double>());
    along.code = weights.follow(along.code, exponent.squeeze(1));
  }
}

std::optional<SampleRows> SampleMeasurement::rows(const TellingWeights& weights) const {
  for (const Along& along : along_) {
    if (!along.exact) continue;
    if (auto result = rows(along, weights)) return result;
  }
  // Some operators do not round in the same way twice. The dimension along which rounding explains the differences is
  // then not told from another where it does too.
  const auto [rounding, mixing] = tolerances(gradient_.scalar_type());
  for (const double tolerance : {rounding, mixing}) {
    std::optional<SampleRows> found;
    for (const Along& along : along_) {
      if (!(along.apart <= tolerance)) continue;
      auto result = rows(along, weights);
      if (result && found) return std::nullopt;
      if (result) found = std::move(result);
    }
    if (found) return found;
  }
  return std::nullopt;
}

std::optional<SampleRows> SampleMeasurement::rows(const Along& along, const TellingWeights& weights) const {
  using Order = SampleRows::Order;
  const std::int64_t n = weights.samples(), count = along.code.size(0);
  const at::Tensor gradient = as_rows(gradient_, along);
  const at::Tensor counts = gradient.ne(0).any(1);  // a row of zeros is anybody's
  const at::Tensor finite = at::isfinite(gradient);
  const at::Tensor told = gradient.ne(0).logical_and(finite).any(1);
  const at::Tensor owner = weights.samples_by_code(along.code.options()).index_select(0, along.code);
  if (owner.masked_select(told).lt(0).any().item<bool>()) return std::nullopt;  // the weight of no sample
  const auto fits = [&](const SampleRows& rows) {
    return !owners(rows, count, owner.options()).ne(owner).logical_and(told).any().item<bool>();
  };
  if (along.dim != kNoDim && count % n == 0) {
    for (const Order order : {Order::SampleMajor, Order::PositionMajor}) {
      if (SampleRows rows{order, n, along.dim, {}}; fits(rows)) return rows;
    }
  }
  if (counts.ne(told).any().item<bool>()) return std::nullopt;  // rows that are no numbers may be of any sample
  const at::Tensor first = told.any().item<bool>() ? owner.masked_select(told).narrow(0, 0, 1) : owner.new_zeros({1});
  if (SampleRows rows{Order::Whole, n, 0, first}; fits(rows)) return rows;
  return along.dim == kNoDim ? std::nullopt
                             : std::optional(SampleRows{Order::Scattered, n, along.dim, owner.clamp_min(0)});
}

}  // namespace dds::hooks
