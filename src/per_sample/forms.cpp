// Entries and sums of the forms that a term can have.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "src/per_sample/terms.hpp"

namespace dds::hooks {

// ---- entries of one form, [begin, end) counted within the term ----

at::Tensor entries_of(const Product& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes) {
  const std::int64_t n = form.left.samples(), groups = form.left.groups(), r = form.left.features(),
                     c = form.right.features(), element = form.left.source().element_size();
  const std::int64_t first = begin / c, last = end / c;  // rows (g, r) of the matrices
  const std::int64_t cut_bytes =
      groups * form.left.positions() * element * ((form.left.is_cut() ? r : 0) + (form.right.is_cut() ? c : 0));
  const std::int64_t block = block_of(n, cut_bytes, max_bytes);
  std::vector<at::Tensor> blocks;
  for (std::int64_t b = 0; b < n; b += block) {
    const std::int64_t e = std::min(n, b + block);
    const at::Tensor left = form.left.slice(b, e), right = form.right.slice(b, e);
    std::vector<at::Tensor> parts;  // by group, since a slab may begin and end within one
    if (first == 0 && last == groups * r) {
      parts.push_back(form.left.positions() == 1 ? left.transpose(2, 3) * right
                                                 : at::matmul(left.transpose(2, 3), right));
    } else {
      for (std::int64_t g = first / r; g * r < last; ++g) {
        const std::int64_t from = std::max(first - g * r, std::int64_t{0}), to = std::min(last - g * r, r);
        parts.push_back(at::matmul(left.select(1, g).narrow(2, from, to - from).transpose(1, 2), right.select(1, g)));
      }
    }
    for (at::Tensor& part : parts) part = part.reshape({e - b, -1});
    blocks.push_back(parts.size() == 1 ? parts.front() : at::cat(parts, 1));
  }
  return blocks.size() == 1 ? blocks.front() : at::cat(blocks);
}

at::Tensor entries_of(const Lookup& form, std::int64_t begin, std::int64_t end, std::int64_t) {
  const std::int64_t n = form.rows.size(0), f = form.rows.size(2);
  const std::int64_t first = begin / f, count = end / f - first;
  const at::Tensor local = form.indices.sub(first);
  const at::Tensor inside = local.ge(0).logical_and(local.lt(count));
  const at::Tensor target =
      at::arange(n, form.indices.options()).mul(count).unsqueeze(1).add(local.clamp(0, count - 1)).flatten();
  const at::Tensor rows = form.rows * inside.unsqueeze(2);
  return at::zeros({n * count, f}, form.rows.options()).index_add(0, target, rows.flatten(0, 1)).view({n, count * f});
}

at::Tensor entries_of(const Sum& form, std::int64_t begin, std::int64_t end, std::int64_t) {
  return form.rows.sum(2).flatten(1).narrow(1, begin, end - begin);
}

at::Tensor entries_of(const Dense& form, std::int64_t begin, std::int64_t end, std::int64_t) {
  return form.rows.narrow(1, begin, end - begin);
}

// ---- the sum over samples of one form ----

at::Tensor sum_of(const Product& form, std::int64_t max_bytes) {
  const std::int64_t n = form.left.samples(), element = form.left.source().element_size();
  const std::int64_t cut_bytes =
      form.left.groups() * form.left.positions() * element *
      ((form.left.is_cut() ? form.left.features() : 0) + (form.right.is_cut() ? form.right.features() : 0));
  const std::int64_t block = block_of(n, cut_bytes, max_bytes);
  at::Tensor sum;
  for (std::int64_t b = 0; b < n; b += block) {
    const std::int64_t e = std::min(n, b + block);
    const at::Tensor part = at::bmm(stacked(form.left.slice(b, e)).transpose(1, 2), stacked(form.right.slice(b, e)));
    sum = sum.defined() ? sum.add_(part) : part;
  }
  return sum.flatten();
}

at::Tensor sum_of(const Lookup& form, std::int64_t) {
  return at::zeros({form.count, form.rows.size(2)}, form.rows.options())
      .index_add(0, form.indices.flatten(), form.rows.flatten(0, 1))
      .flatten();
}

at::Tensor sum_of(const Sum& form, std::int64_t) { return form.rows.sum(2).sum(0).flatten(); }

at::Tensor sum_of(const Dense& form, std::int64_t) { return form.rows.sum(0); }

std::int64_t unit_of(const Term& term) {
  if (const auto* form = std::get_if<Product>(&term.form)) return form->right.features();
  if (const auto* form = std::get_if<Lookup>(&term.form)) return form->rows.size(2);
  return 1;
}

}  // namespace dds::hooks
