#include "src/causes/dead_span.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace dds {

DeadSpan::DeadSpan(at::Tensor factor, double floor, double smallest)
    : factor_(std::move(factor)),
      floor_(floor),
      smallest_(smallest),
      taken_(at::empty({0, width()}, factor_.options())) {
  const at::Tensor norms = factor_.norm(2, {0}).contiguous();
  norms_.assign(norms.data_ptr<double>(), norms.data_ptr<double>() + norms.numel());
}

bool DeadSpan::take(const at::Tensor& vectors, std::int64_t most, Cause& cause) {
  if (most <= 0 || vectors.size(0) == 0) return false;
  at::Tensor parts = vectors.div(vectors.norm(2, {1}, /*keepdim=*/true));
  for (int again = 0; again < 2; ++again) parts = parts.sub(parts.mm(taken_.t()).mm(taken_));
  const auto [basis, triangle] = at::linalg_qr(parts.t());
  constexpr double kIndependent = 1e-7;  // of unit vectors, in fp64
  const at::Tensor independent = triangle.diagonal().abs().gt(kIndependent).nonzero().flatten();
  double largest = 0;
  at::Tensor dead = dead_part(basis.index_select(1, independent).t(), largest);
  if (dead.size(0) == 0) return false;
  if (dead.size(0) > most) dead = dead.narrow(0, 0, most);
  taken_ = at::cat({taken_, dead});
  cause.directions = dead.size(0);
  cause.axes = dead;
  cause.angle = smallest_ > 0 ? std::asin(std::min(1.0, largest / smallest_)) : 0;
  return true;
}

/// What is dead in the span of orthonormal rows; `largest`: |factor v| for the worst of it.
at::Tensor DeadSpan::dead_part(const at::Tensor& basis, double& largest) const {
  if (basis.size(0) == 0) return basis;
  const at::Tensor image = factor_.mm(basis.t());
  largest = image.norm().item<double>();  // not below any |factor v|
  if (largest <= floor_) return basis.contiguous();
  const auto [left, sigma, right] = at::linalg_svd(image, /*full_matrices=*/true);
  const at::Tensor values = sigma.contiguous();
  const double* const begin = values.data_ptr<double>();
  const std::int64_t alive = std::count_if(begin, begin + sigma.numel(), [&](double s) { return s > floor_; });
  largest = alive < sigma.numel() ? begin[alive] : 0;
  return right.narrow(0, alive, right.size(0) - alive).mm(basis);
}

bool DeadSpan::take_units(std::vector<std::int64_t> units, std::int64_t most, Cause& cause) {
  const at::Tensor axes = at::zeros({std::ssize(units), width()}, factor_.options());
  for (std::size_t i = 0; i < units.size(); ++i) {
    axes.data_ptr<double>()[static_cast<std::int64_t>(i) * width() + units[i]] = 1;
  }
  cause.units = std::move(units);
  return take(axes, most, cause);
}

at::Tensor DeadSpan::rest(std::int64_t dimension) const {
  const at::Tensor right = std::get<2>(at::linalg_svd(factor_, /*full_matrices=*/true));
  const at::Tensor dead = right.narrow(0, width() - dimension, dimension);
  if (taken_.size(0) == 0) return dead;
  if (taken_.size(0) >= dimension) return dead.narrow(0, 0, 0);
  const at::Tensor within = std::get<2>(at::linalg_svd(taken_.mm(dead.t()), /*full_matrices=*/true));
  return within.narrow(0, taken_.size(0), dimension - taken_.size(0)).mm(dead);
}

}  // namespace dds
