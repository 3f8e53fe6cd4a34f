// Dead directions of few units: duplicates and combinations.
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "src/causes/search.hpp"

namespace dds {
namespace {

/// The reduced form of a basis: each row has a pivot, where all others are zero. Rows of few units stand out.
at::Tensor reduced(at::Tensor basis) {
  const std::int64_t count = basis.size(0), width = basis.size(1);
  basis = basis.clone(at::MemoryFormat::Contiguous);
  double* const rows = basis.data_ptr<double>();
  for (std::int64_t step = 0; step < count; ++step) {
    double* const begin = rows + step * width;
    double* const largest =
        std::max_element(begin, rows + count * width, [](double a, double b) { return std::abs(a) < std::abs(b); });
    const std::int64_t place = largest - rows, column = place % width;
    std::swap_ranges(begin, begin + width, rows + place / width * width);
    const double pivot = begin[column];
    std::for_each(begin, begin + width, [&](double& entry) { entry /= pivot; });
    for (std::int64_t other = 0; other < count; ++other) {
      const double factor = rows[other * width + column];
      if (other == step || factor == 0) continue;
      for (std::int64_t i = 0; i < width; ++i) rows[other * width + i] -= factor * begin[i];
    }
  }
  return basis;
}

}  // namespace

std::vector<Twin> twins_of(const DeadSpan& span) {
  const std::int64_t width = span.width();
  const std::vector<double>& norms = span.column_norms();
  const at::Tensor products = at::mm(span.factor().t(), span.factor()).contiguous();
  const double* const product = products.data_ptr<double>();
  constexpr double kCosine = 1 - 1e-6, kApart = 1e-3;
  std::vector<Twin> twins;
  std::vector<bool> found(norms.size());
  for (std::int64_t a = 0; a < width; ++a) {
    if (found[a] || norms[a] <= span.floor()) continue;
    for (std::int64_t b = a + 1; b < width; ++b) {
      if (found[b] || norms[b] <= span.floor()) continue;
      const double inner = product[a * width + b];
      if (std::abs(inner) < kCosine * norms[a] * norms[b]) continue;
      const double sign = inner > 0 ? 1 : -1;
      const double apart = span.factor().select(1, a).sub(span.factor().select(1, b), sign).norm().item<double>();
      if (apart > std::sqrt(2.0) * span.floor() || apart > kApart * norms[a]) continue;
      twins.push_back({b, a, sign});
      found[b] = true;
    }
  }
  return twins;
}

void find_duplicates(CauseSearch& search) {
  if (search.left <= 0) return;
  std::vector<Twin> twins = twins_of(search.span);
  const std::vector<std::int64_t>& constants = search.constants;
  std::erase_if(twins, [&](const Twin& twin) {
    return std::binary_search(constants.begin(), constants.end(), twin.unit) ||
           std::binary_search(constants.begin(), constants.end(), twin.of);
  });
  if (twins.empty()) return;
  const at::Tensor vectors = at::zeros({std::ssize(twins), search.span.width()}, search.span.factor().options());
  std::set<std::int64_t> units;
  for (std::size_t i = 0; i < twins.size(); ++i) {
    double* const row = vectors.data_ptr<double>() + static_cast<std::int64_t>(i) * search.span.width();
    row[twins[i].unit] = 1;
    row[twins[i].of] = -twins[i].sign;
    units.insert({twins[i].unit, twins[i].of});
  }
  Cause cause{.kind = CauseKind::Duplicate, .units = {units.begin(), units.end()}};
  if (search.span.take(vectors, search.left, cause)) search.explain(std::move(cause));
}

void find_combinations(CauseSearch& search) {
  if (search.left <= 0) return;
  const at::Tensor basis = search.span.rest(search.dead);
  const std::int64_t rank = search.span.width() - search.dead;
  // A row of the reduced form of any subspace has 1 + rank entries: fewer are no accident.
  const std::int64_t most = std::min<std::int64_t>(4, 1 + rank / 2);
  if (basis.size(0) == 0 || basis.size(0) > search.span.width() / 2) return;
  const at::Tensor rows = reduced(basis);
  constexpr double kNone = 1e-6;
  std::vector<at::Tensor> sparse;
  std::set<std::int64_t> units;
  for (std::int64_t i = 0; i < rows.size(0); ++i) {
    const double* const row = rows.data_ptr<double>() + i * rows.size(1);
    std::vector<std::int64_t> support;
    for (std::int64_t unit = 0; unit < rows.size(1); ++unit) {
      if (std::abs(row[unit]) > kNone) support.push_back(unit);
    }
    if (std::ssize(support) > most || std::ssize(support) < 2) continue;
    sparse.push_back(rows.select(0, i));
    units.insert(support.begin(), support.end());
  }
  if (sparse.empty()) return;
  at::Tensor vectors = at::zeros({std::ssize(sparse), rows.size(1)}, rows.options());
  for (std::size_t i = 0; i < sparse.size(); ++i) vectors.select(0, static_cast<std::int64_t>(i)).copy_(sparse[i]);
  Cause cause{.kind = CauseKind::Combination, .units = {units.begin(), units.end()}};
  if (search.span.take(vectors, search.left, cause)) search.explain(std::move(cause));
}

}  // namespace dds
