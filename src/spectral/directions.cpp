#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <dds/directions.hpp>
#include <dds/error.hpp>
#include <utility>

namespace dds {
namespace {

std::string shape_of(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", ")) : "undefined";
}

at::Tensor checked_basis(const at::Tensor& axes, const char* who) {
  if (!axes.defined() || axes.dim() != 2 || !axes.is_floating_point() || axes.size(1) == 0) {
    throw InvalidArgument(
        fmt::format("{}: axes are {}, expected a floating matrix with one axis a row", who, shape_of(axes)));
  }
  at::Tensor basis = axes.detach().to(at::kCPU, at::kDouble);
  if (basis.size(0) == 0) return basis;
  const double error = basis.mm(basis.t()).sub(at::eye(basis.size(0), basis.options())).abs().max().item<double>();
  if (!(error <= 1e-6)) {
    throw InvalidArgument(fmt::format("{}: the rows of axes {} are off orthonormality by {}, expected at most 1e-6",
                                      who, shape_of(axes), error));
  }
  return basis;
}

}  // namespace

PrincipalAngles principal_angles(const at::Tensor& a, const at::Tensor& b) {
  const at::NoGradGuard no_grad;
  const at::Tensor first = checked_basis(a, "principal_angles"), second = checked_basis(b, "principal_angles");
  if (first.size(1) != second.size(1)) {
    throw InvalidArgument(fmt::format("principal_angles: axes of dimension {} and {}, expected one space",
                                      first.size(1), second.size(1)));
  }
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
    throw InvalidArgument(
        "WeightImage: side is activation, expected input or fisher: the dead axes of an output leave the weights of "
        "the "
        "layer free that takes it in");
  }
}

void WeightImage::check(const at::Tensor& weight) const {
  const std::int64_t dim = side_ == Side::Fisher ? 0 : 1;
  if (!weight.defined() || weight.dim() < 2 || weight.size(dim) != axes_.size(1)) {
    throw InvalidArgument(fmt::format("WeightImage: the weight is {}, expected {} in dimension {}", shape_of(weight),
                                      axes_.size(1), dim));
  }
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
