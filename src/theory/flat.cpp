#include "src/theory/flat.hpp"

#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

constexpr double kFlatCurvature = 1e-9;  // of the largest curvature
constexpr double kNothing = 1e-6;        // of the length of a vector: a shorter part of it is rounding

}  // namespace

at::Tensor uneven_vector(const at::Tensor& like, int i) {
  const double stride = std::sqrt(2.0 + 3.0 * i);
  at::Tensor v = at::zeros_like(like);
  double* const entries = v.data_ptr<double>();
  for (std::int64_t entry = 0; entry < v.numel(); ++entry) {
    const double turns = static_cast<double>(entry + 1) * stride;
    entries[entry] = 2 * (turns - std::floor(turns)) - 1;
  }
  return v.div(v.norm());
}

Flat::Flat(Landscape& landscape, const at::Tensor& point, double least) : landscape_(landscape), point_(point) {
  if (point.numel() > kMostExact) return;
  const Complement whole(landscape, at::zeros_like(point));
  const auto [curvatures, basis] = at::linalg_eigh(hessian_of(whole, whole.whole_gradient(point)));
  const double largest = curvatures.abs().max().item<double>();
  const auto flat = curvatures.le(std::max(least, kFlatCurvature * largest)).sum().item<std::int64_t>();
  basis_ = basis.narrow(1, 0, flat);
}

/// The part of v in the flat directions. Of many weights by conjugate gradients, which take the others out.
at::Tensor Flat::part_of(const at::Tensor& v) const {
  if (basis_.defined()) return basis_.mv(basis_.t().mv(v));
  const Complement whole(landscape_, at::zeros_like(v));
  whole.whole_gradient(point_);
  return v.add(newton_step(whole, whole.curvature(v), 2));
}

std::vector<at::Tensor> Flat::rays(int most, const at::Tensor& direction) const {
  std::vector<at::Tensor> result;
  for (int i = 0; i < most; ++i) {
    at::Tensor v = part_of(uneven_vector(point_, i));
    if (direction.defined()) v = Complement(landscape_, direction).projected(v);
    if (!(v.norm().item<double>() > kNothing)) break;
    at::Tensor apart = v;
    for (const at::Tensor& other : result) apart = apart.sub(other.mul(other.dot(apart)));
    if (apart.norm().item<double>() > kNothing * v.norm().item<double>()) v = apart;
    result.push_back(v.div(v.norm()));
  }
  return result;
}

}  // namespace dds
