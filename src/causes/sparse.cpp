// Dead directions of few units: duplicates and combinations.
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "src/causes/search.hpp"

namespace dds {
namespace {

/// The reduced form of a basis (row by row `count` x `width`): each row has a pivot, where all others are zero. A
/// vector of few units stands out as a row if no other pivot is among its units, so `draw` chooses among large entries.
void reduce(std::vector<double>& rows, std::int64_t count, std::int64_t width, std::minstd_rand& draw) {
  constexpr double kLarge = 0.2;  // of the largest
  std::vector<std::int64_t> large;
  for (std::int64_t step = 0; step < count; ++step) {
    double* const begin = rows.data() + step * width;
    double most = 0;
    std::for_each(begin, rows.data() + count * width, [&](double entry) { most = std::max(most, std::abs(entry)); });
    if (!(most > 0)) return;
    large.clear();
    for (std::int64_t i = step * width; i < count * width; ++i) {
      if (std::abs(rows[i]) >= kLarge * most) large.push_back(i);
    }
    const std::int64_t place = large[draw() % large.size()], column = place % width;
    if (place / width != step) std::swap_ranges(begin, begin + width, rows.data() + place / width * width);
    const double pivot = begin[column];
    std::for_each(begin, begin + width, [&](double& entry) { entry /= pivot; });
    for (std::int64_t other = 0; other < count; ++other) {
      const double factor = rows[other * width + column];
      if (other == step || factor == 0) continue;
      for (std::int64_t i = 0; i < width; ++i) rows[other * width + i] -= factor * begin[i];
    }
  }
}

/// Vectors of two to `most` units in the span of a basis, each once, by their units.
std::map<std::vector<std::int64_t>, std::vector<double>> sparse_vectors(const at::Tensor& basis, std::int64_t most) {
  const std::int64_t count = basis.size(0), width = basis.size(1);
  const double* const entries = basis.data_ptr<double>();
  constexpr std::int64_t kMostWork = std::int64_t{1} << 26;
  const std::int64_t tries = std::clamp<std::int64_t>(kMostWork / (count * count * width), 1, 40);
  constexpr double kNone = 1e-6;
  std::map<std::vector<std::int64_t>, std::vector<double>> found;
  std::minstd_rand draw;  // the same for every reading
  for (std::int64_t i = 0; i < tries; ++i) {
    std::vector<double> rows(entries, entries + count * width);
    reduce(rows, count, width, draw);
    for (auto row = rows.begin(); row != rows.end(); row += width) {
      std::vector<std::int64_t> units;
      for (std::int64_t unit = 0; unit < width; ++unit) {
        if (std::abs(row[unit]) > kNone) units.push_back(unit);
      }
      if (std::ssize(units) >= 2 && std::ssize(units) <= most) {
        found.try_emplace(std::move(units), row, row + width);
      }
    }
  }
  return found;
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
  // A vector of any subspace has 1 + rank entries or more: fewer are no accident.
  const std::int64_t most = std::min<std::int64_t>(4, 1 + rank / 2);
  if (basis.size(0) == 0 || basis.size(0) > search.span.width() / 2) return;
  const auto sparse = sparse_vectors(basis.contiguous(), most);
  if (sparse.empty()) return;
  const at::Tensor vectors = at::zeros({std::ssize(sparse), basis.size(1)}, basis.options());
  std::set<std::int64_t> units;
  double* next = vectors.data_ptr<double>();
  for (const auto& [of, entries] : sparse) {
    next = std::copy(entries.begin(), entries.end(), next);
    units.insert(of.begin(), of.end());
  }
  Cause cause{.kind = CauseKind::Combination, .units = {units.begin(), units.end()}};
  if (search.span.take(vectors, search.left, cause)) search.explain(std::move(cause));
}

}  // namespace dds
