#include "src/rows/centring.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace dds {
namespace {

/// Of parts with these means: the row that stands for the difference of their means. `mean` becomes that of all.
at::Tensor difference(Mean& mean, const at::Tensor& other, std::int64_t rows) {
  const double before = static_cast<double>(mean.rows), added = static_cast<double>(rows);
  const at::Tensor apart = other.sub(mean.value);
  mean.value = mean.value.add(apart, added / (before + added));
  mean.rows += rows;
  return apart.mul(std::sqrt(before * added / (before + added))).unsqueeze(0);
}

}  // namespace

// Of n rows less their own mean a reflection that turns the vector of ones into the first axis leaves n - 1 and a row
// of zeros. In its place comes the difference of the means.
at::Tensor centred_rows(const at::Tensor& rows, Mean& mean) {
  const std::int64_t count = rows.size(0);
  const at::Tensor all = rows.to(at::kDouble);
  const at::Tensor own = all.mean(0);
  at::Tensor centred = all.sub(own);
  if (count > 1) {
    at::Tensor mirror = at::full({count, 1}, 1 / std::sqrt(static_cast<double>(count)), centred.options());
    mirror.select(0, 0).sub_(1);
    mirror.div_(mirror.norm());
    centred.addmm_(mirror, at::mm(mirror.t(), centred), 1, -2);
  }
  at::Tensor first = centred.narrow(0, 0, 1);
  if (mean.rows == 0) {
    mean = {own, count};
    first.zero_();
  } else {
    first.copy_(difference(mean, own, count));
  }
  return centred;
}

TriangularAccumulator joined_centred(const TriangularAccumulator& factor, Mean& mean,
                                     const TriangularAccumulator& other, const Mean& others) {
  const std::int64_t rows = mean.rows + others.rows, width = factor.width();
  TriangularAccumulator all = factor;
  all.merge(other.to(*factor.device()));
  all.update(difference(mean, others.value.to(*factor.device()), others.rows));  // one row more than there are
  const TriangularAccumulator::Factor joined = all.factor();
  const std::int64_t height = std::min(rows, width);
  if (joined.factor.size(0) == height) return TriangularAccumulator::from_factor(rows, joined.factor, joined.exponent);
  // Fewer rows than columns, of which one is too much: their rank is below their number.
  const auto [left, sigma, right] = at::linalg_svd(joined.factor, /*full_matrices=*/false);
  const at::Tensor fewer = sigma.unsqueeze(1).mul(right).narrow(0, 0, height).contiguous();
  return TriangularAccumulator::from_factor(rows, fewer, joined.exponent);
}

}  // namespace dds
