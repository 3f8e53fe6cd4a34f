#include "src/spectral/solver.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_svdvals.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "src/base/dtype.hpp"

namespace dds {
namespace {

double dot(const double* a, const double* b, std::int64_t n) { return std::inner_product(a, a + n, b, 0.0); }

/// Rotates rows a and b until they are orthogonal. False if they were.
bool orthogonalise(double* a, double* b, std::int64_t n, double tolerance) {
  const double aa = dot(a, a, n), bb = dot(b, b, n), ab = dot(a, b, n);
  if (!(std::abs(ab) > tolerance * std::sqrt(aa) * std::sqrt(bb))) return false;
  const double zeta = (bb - aa) / (2 * ab);
  const double t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
  const double c = 1 / std::hypot(1.0, t), s = c * t;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
  return true;
}

}  // namespace

std::int64_t axes_of(const at::Tensor& matrix) {
  const std::int64_t k = matrix.size(-2), d = matrix.size(-1);
  return d > Spectrum::kMostAxes ? std::min(k, d) : d;
}

Decomposition library_svd(const at::Tensor& matrices, bool vectors) {
  if (!vectors) return {at::linalg_svdvals(matrices), {}};
  Decomposition result;
  std::tie(std::ignore, result.sigma, result.right) =
      at::linalg_svd(matrices, /*full_matrices=*/axes_of(matrices) > matrices.size(-2));
  return result;
}

Decomposition jacobi_svd(const at::Tensor& matrix, bool vectors) {
  const std::int64_t k = matrix.size(0), d = matrix.size(1);
  const at::Tensor rows = matrix.clone(at::MemoryFormat::Contiguous);
  double* const data = rows.data_ptr<double>();
  const auto row = [&](std::int64_t i) { return data + i * d; };
  const double tolerance = machine_epsilon(at::kDouble, "jacobi_svd") * std::sqrt(static_cast<double>(d));
  constexpr int kMostSweeps = 60;  // about ten are the rule
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMostSweeps; ++sweep) {
    rotated = false;
    for (std::int64_t i = 0; i + 1 < k; ++i) {
      for (std::int64_t j = i + 1; j < k; ++j) rotated |= orthogonalise(row(i), row(j), d, tolerance);
    }
  }

  std::vector<double> norms(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i) norms[i] = std::sqrt(dot(row(i), row(i), d));
  std::vector<std::int64_t> order(norms.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return norms[a] > norms[b]; });

  Decomposition result;
  result.sigma = at::empty({k}, matrix.options());
  double* const sigma = result.sigma.data_ptr<double>();
  std::vector<at::Tensor> axes;
  for (std::int64_t i = 0; i < k; ++i) {
    sigma[i] = norms[order[i]];
    if (vectors && sigma[i] > 0) axes.push_back(rows.select(0, order[i]).div(sigma[i]).unsqueeze(0));
  }
  if (!vectors) return result;
  // Dimensions that no row reaches complete the basis.
  const std::int64_t found = static_cast<std::int64_t>(axes.size()), wanted = axes_of(matrix);
  axes.push_back(at::empty({0, d}, matrix.options()));
  const at::Tensor basis = at::cat(axes);
  const at::Tensor whole = wanted == d ? std::get<0>(at::linalg_qr(basis.t(), "complete"))
                                       : std::get<0>(at::linalg_qr(at::cat({basis, matrix}).t(), "reduced"));
  result.right = at::cat({basis, whole.t().narrow(0, found, wanted - found)});
  return result;
}

}  // namespace dds
