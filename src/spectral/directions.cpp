#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <dds/directions.hpp>
#include <utility>

#include "src/base/check.hpp"

namespace dds {
namespace {

at::Tensor checked_basis(const at::Tensor& axes, const char* who) {
  check(axes.defined() && axes.dim() == 2 && axes.is_floating_point() && axes.size(1) > 0, who, "axes", axes,
        "a floating matrix with one axis a row");
  at::Tensor basis = axes.detach().to(at::kCPU, at::kDouble);
  if (basis.size(0) == 0) return basis;
  const double error = basis.mm(basis.t()).sub(at::eye(basis.size(0), basis.options())).abs().max().item<double>();
  check(error <= 1e-6, who, "the largest entry of |A A^T - I|, A the axes,", error, "at most 1e-6, for orthonormality");
  return basis;
}

}  // namespace

PrincipalAngles principal_angles(const at::Tensor& a, const at::Tensor& b) {
  const at::NoGradGuard no_grad;
  const at::Tensor first = checked_basis(a, "principal_angles"), second = checked_basis(b, "principal_angles");
  check(second.size(1) == first.size(1), "principal_angles", "the dimension of b", second.size(1),
        "{}, the dimension of a", first.size(1));
  PrincipalAngles result;
  if (first.size(0) == 0 || second.size(0) == 0) {
    result.first = first;
    result.second = second;
    return result;
  }
  const auto [left, cosines, right] = at::linalg_svd(first.mm(second.t()), /*full_matrices=*/true);
  result.first = left.t().mm(first);
  result.second = right.mm(second);
  const double* const cosine = cosines.data_ptr<double>();
  const std::int64_t count = cosines.numel();
  const std::int64_t close = std::count_if(cosine, cosine + count, [](double c) { return c * c > 0.5; });
  if (close > 0) {
    // Cosines near 1 tell neither small angles nor their vectors apart. What is left of this part of the second space
    // outside the first does: its singular values are the sines.
    const at::Tensor part = result.second.narrow(0, 0, close);
    const auto [rotation, sines, ignored] =
        at::linalg_svd(part.sub(part.mm(first.t()).mm(first)), /*full_matrices=*/false);
    const at::Tensor ascending = rotation.t().flip({0}).mm(part);
    const at::Tensor inside = ascending.mm(first.t()).mm(first);
    result.first = at::cat(
        {inside.div(inside.norm(2, {1}, /*keepdim=*/true)), result.first.narrow(0, close, first.size(0) - close)});
    result.second = at::cat({ascending, result.second.narrow(0, close, second.size(0) - close)});
    const at::Tensor sine = sines.flip({0}).contiguous();
    for (std::int64_t i = 0; i < close; ++i) {
      result.angles.push_back(std::asin(std::min(1.0, sine.data_ptr<double>()[i])));
    }
  }
  for (std::int64_t i = close; i < count; ++i) result.angles.push_back(std::acos(std::min(1.0, cosine[i])));
  return result;
}

WeightImage::WeightImage(Side side, at::Tensor axes) : side_(side), axes_(checked_basis(axes, "WeightImage")) {
  if (side == Side::Activation) {
    throw_invalid("WeightImage", "side", "activation",
                  "input or fisher: the dead axes of an output leave the weights of the next layer free");
  }
}

void WeightImage::check(const at::Tensor& weight) const {
  const std::int64_t dim = side_ == Side::Fisher ? 0 : 1;
  dds::check(weight.defined() && weight.dim() >= 2 && weight.size(dim) == axes_.size(1), "WeightImage", "the weight",
             weight, "size {} in dimension {}", axes_.size(1), dim);
}

std::int64_t WeightImage::dimension(const at::Tensor& weight) const {
  check(weight);
  return axes_.size(0) * (weight.numel() / axes_.size(1));
}

at::Tensor WeightImage::shares() const { return axes_.square().sum(0); }

at::Tensor WeightImage::project(const at::Tensor& matrix) const {
  check(matrix);
  const at::NoGradGuard no_grad;
  const std::int64_t dim = side_ == Side::Fisher ? 0 : 1;
  const at::Tensor features_last = matrix.detach().to(at::kCPU, at::kDouble).transpose(dim, -1);
  return at::matmul(at::matmul(features_last, axes_.t()), axes_).transpose(dim, -1);
}

}  // namespace dds
