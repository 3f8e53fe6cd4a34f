// Inner products of per-sample gradients: the upper triangle of n K_l, in the cheaper of two orders for each term.
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/real.h>

#include <algorithm>

#include "src/per_sample/terms.hpp"

namespace dds::hooks {
namespace {

/// Inner products of the rows of samples [b, e) with the conjugates of those of [c, d): (g, (e - b) p, (d - c) p).
at::Tensor inner(const Factor& factor, std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
  return at::bmm(stacked(factor.slice(b, e)), stacked(factor.slice(c, d)).transpose(1, 2).conj());
}

/// Fills in sums over positions and groups of left-inner times right-inner, block by block to the right of the
/// diagonal.
template <class Left, class Right>
void add_over_positions(at::Tensor& sum, std::int64_t groups, std::int64_t positions, std::int64_t max_bytes,
                        const Left& left, const Right& right) {
  const std::int64_t n = sum.size(0), element = sum.element_size();
  const std::int64_t pair_bytes = 2 * groups * positions * positions * element;
  // A quarter at a time leaves out most of the lower triangle, and keeps the products large.
  const std::int64_t quarter = n < 128 ? n : (n + 3) / 4;
  const std::int64_t rows = std::min(quarter, block_of(n, quarter * pair_bytes, max_bytes));
  const std::int64_t columns = block_of(n, rows * pair_bytes, max_bytes);
  for (std::int64_t b = 0; b < n; b += rows) {
    const std::int64_t e = std::min(n, b + rows);
    for (std::int64_t c = b; c < n; c += columns) {
      const std::int64_t d = std::min(n, c + columns);
      const at::Tensor both = at::real(left(b, e, c, d).mul_(right(b, e, c, d)));
      at::Tensor target = sum.narrow(0, b, e - b).narrow(1, c, d - c);
      if (groups == 1 && positions == 1) {
        target.add_(both.squeeze(0));
      } else {
        target.add_(both.reshape({groups, e - b, positions, d - c, positions}).sum({0, 2, 4}));
      }
    }
  }
}

/// Adds rows rows^T to the upper triangle, block by block.
void add_symmetric(at::Tensor& sum, const at::Tensor& rows) {
  const std::int64_t n = rows.size(0), block = n < 128 ? n : (n + 3) / 4;
  for (std::int64_t b = 0; b < n; b += block) {
    const std::int64_t e = std::min(n, b + block);
    sum.narrow(0, b, e - b).narrow(1, b, n - b).addmm_(rows.narrow(0, b, e - b), rows.narrow(0, b, n - b).t());
  }
}

/// Over positions, if that is cheaper. Returns false if it is not.
bool add_over_positions(const Product& form, at::Tensor& sum, std::int64_t max_bytes) {
  const Factor &left = form.left, &right = form.right;
  if (form.ones == Ones::None &&
      !positions_are_cheaper(left.samples(), left.positions(), left.features(), right.features())) {
    return false;
  }
  const auto side = [](const Factor& factor, bool ones) {
    return [&factor, ones](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
      at::Tensor products = inner(factor, b, e, c, d);
      return ones ? products.add_(1) : products;
    };
  };
  add_over_positions(sum, left.groups(), left.positions(), max_bytes, side(left, form.ones == Ones::Left),
                     side(right, form.ones == Ones::Right));
  return true;
}

bool add_over_positions(const Lookup& form, at::Tensor& sum, std::int64_t max_bytes) {
  if (!positions_are_cheaper(form.rows.size(0), form.rows.size(1), form.rows.size(2), form.count)) return false;
  const Factor rows(form.rows.unsqueeze(1));
  const auto same = [&](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
    return form.indices.narrow(0, b, e - b)
        .reshape({1, -1, 1})
        .eq(form.indices.narrow(0, c, d - c).reshape({1, 1, -1}));
  };
  add_over_positions(
      sum, 1, form.rows.size(1), max_bytes,
      [&](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) { return inner(rows, b, e, c, d); }, same);
  return true;
}

bool add_over_positions(const Sum&, at::Tensor&, std::int64_t) { return false; }
bool add_over_positions(const Dense&, at::Tensor&, std::int64_t) { return false; }

}  // namespace

/// Terms that lie apart have no cross terms.
bool Terms::lies_alone(const Term& term) const {
  return std::all_of(terms_.begin(), terms_.end(), [&](const Term& other) {
    return &other == &term || other.begin >= term.begin + term.size || term.begin >= other.begin + other.size;
  });
}

void Terms::add_gram(at::Tensor& sum, std::int64_t max_bytes) const {
  const auto add_entries = [&](const Terms& of) {
    of.for_each_slab(max_bytes, [&](const at::Tensor& slab) { add_symmetric(sum, real_rows(slab)); });
  };
  Terms together(samples_, numel_);
  for (const Term& term : terms_) {
    if (!lies_alone(term)) {
      together.terms_.push_back(term);
    } else if (!std::visit([&](const auto& form) { return add_over_positions(form, sum, max_bytes); }, term.form)) {
      Terms one(samples_, term.size);
      one.add({term.form, 0, term.size});
      add_entries(one);
    }
  }
  if (!together.terms_.empty()) add_entries(together);
}

}  // namespace dds::hooks
