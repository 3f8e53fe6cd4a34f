#include "src/per_sample/terms.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/real.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <type_traits>
#include <utility>

namespace dds::hooks {

namespace {

/// The sum of |x|^2 over the last two dimensions.
at::Tensor squares_of(const at::Tensor& rows) { return rows.abs().square().sum({2, 3}); }

}  // namespace

at::Tensor real_rows(const at::Tensor& rows) {
  return rows.is_complex() ? at::view_as_real(rows.resolve_conj()).flatten(1) : rows;
}

void Terms::add(Term term) {
  for (Term& known : terms_) {
    if (known.begin != term.begin || known.size != term.size) continue;
    auto* a = std::get_if<Product>(&known.form);
    auto* b = std::get_if<Product>(&term.form);
    if (a && b && !a->left.is_cut() && !a->right.is_cut() && !b->left.is_cut() && !b->right.is_cut() &&
        a->left.groups() == b->left.groups() && a->right.features() == b->right.features()) {
      a->left = Factor(at::cat({a->left.source(), b->left.source()}, 2));
      a->right = Factor(at::cat({a->right.source(), b->right.source()}, 2));
      return;
    }
    auto* first = std::get_if<Lookup>(&known.form);
    auto* second = std::get_if<Lookup>(&term.form);
    if (first && second) {
      first->rows = at::cat({first->rows, second->rows}, 1);
      first->indices = at::cat({first->indices, second->indices}, 1);
      return;
    }
  }
  terms_.push_back(std::move(term));
}

/// Slabs begin and end at multiples of it.
std::int64_t Terms::unit() const {
  std::int64_t unit = 1;
  for (const Term& term : terms_) unit = std::max(unit, unit_of(term));
  for (const Term& term : terms_) {
    if (unit % unit_of(term) != 0 || (unit_of(term) > 1 && term.begin % unit != 0)) return numel_;
  }
  return unit;
}

at::Tensor Terms::entries(std::int64_t begin, std::int64_t end, std::int64_t max_bytes) const {
  at::Tensor result;
  for (const Term& term : terms_) {
    const std::int64_t from = std::max(begin, term.begin), to = std::min(end, term.begin + term.size);
    if (from >= to) continue;
    const at::Tensor part = std::visit(
        [&](const auto& form) { return entries_of(form, from - term.begin, to - term.begin, max_bytes); }, term.form);
    if (!result.defined() && from == begin && to == end) {
      result = terms_.size() == 1 ? part : part.clone();
    } else {
      if (!result.defined()) result = at::zeros({samples_, end - begin}, part.options());
      result.narrow(1, from - begin, to - from).add_(part);
    }
  }
  if (!result.defined()) {
    const Term& any = terms_.front();
    const at::TensorOptions options = std::visit(
        [](const auto& form) {
          if constexpr (std::is_same_v<std::decay_t<decltype(form)>, Product>) {
            return form.left.options();
          } else {
            return form.rows.options();
          }
        },
        any.form);
    result = at::zeros({samples_, end - begin}, options);
  }
  return result;
}

void Terms::for_each_slab(std::int64_t max_bytes, const std::function<void(const at::Tensor&)>& visit) const {
  const std::int64_t step = unit();
  const std::int64_t units = block_of(numel_ / step, samples_ * step * 8, max_bytes);
  for (std::int64_t begin = 0; begin < numel_; begin += units * step) {
    visit(entries(begin, std::min(numel_, begin + units * step), max_bytes));
  }
}

Terms Terms::weighted(const at::Tensor& weights) const {
  Terms result = *this;
  for (Term& term : result.terms_) {
    std::visit(
        [&](auto& form) {
          if constexpr (std::is_same_v<std::decay_t<decltype(form)>, Product>) {
            Factor& scaled = form.ones == Ones::Left ? form.right : form.left;
            scaled = scaled.weighted(weights);
          } else {
            form.rows = weighted_rows(form.rows, weights);
          }
        },
        term.form);
  }
  return result;
}

at::Tensor Terms::sum(std::int64_t max_bytes) const {
  at::Tensor result;
  for (const Term& term : terms_) {
    const at::Tensor part = std::visit([&](const auto& form) { return sum_of(form, max_bytes); }, term.form);
    if (!result.defined()) result = at::zeros({numel_}, part.options());
    result.narrow(0, term.begin, term.size).add_(part);
  }
  return result;
}

at::Tensor Terms::squared_norms(std::int64_t max_bytes) const {
  const auto* form = terms_.size() == 1 ? std::get_if<Product>(&terms_.front().form) : nullptr;
  if (form) {
    const std::int64_t p = form->left.positions(), r = form->left.features(), c = form->right.features();
    if (p == 1 && !form->left.is_cut() && !form->right.is_cut()) {
      return squares_of(form->left.source()).mul(squares_of(form->right.source())).sum(1);
    }
    if (p * (r + c) < r * c) {
      const std::int64_t element = form->left.source().element_size();
      const std::int64_t block = block_of(samples_, form->left.groups() * p * (2 * p + r + c) * element, max_bytes);
      std::vector<at::Tensor> norms;
      for (std::int64_t b = 0; b < samples_; b += block) {
        const std::int64_t e = std::min(samples_, b + block);
        const at::Tensor left = form->left.slice(b, e), right = form->right.slice(b, e);
        norms.push_back(at::real(at::matmul(left, left.transpose(2, 3).conj())
                                     .mul_(at::matmul(right, right.transpose(2, 3).conj()))
                                     .sum({1, 2, 3})));
      }
      return at::cat(norms);
    }
  }
  at::Tensor sum;
  for_each_slab(max_bytes, [&](const at::Tensor& slab) {
    const at::Tensor squares = real_rows(slab).square().sum(1);
    sum = sum.defined() ? sum.add_(squares) : squares;
  });
  return sum;
}

bool positions_are_cheaper(std::int64_t samples, std::int64_t positions, std::int64_t rows, std::int64_t columns) {
  const auto n = static_cast<double>(samples), p = static_cast<double>(positions), r = static_cast<double>(rows),
             c = static_cast<double>(columns);
  return n * n * p * p * (r + c) <= 2 * n * p * r * c + n * n * r * c;
}

std::optional<Terms> joined_with_bias(const Terms& weight, const Terms& bias) {
  if (weight.terms().size() != 1 || bias.terms().size() != 1) return std::nullopt;
  const auto* form = std::get_if<Product>(&weight.terms().front().form);
  const auto* shift = std::get_if<Sum>(&bias.terms().front().form);
  if (!form || !shift) return std::nullopt;
  if (!positions_are_cheaper(weight.samples(), form->left.positions(), form->left.features(), form->right.features())) {
    return std::nullopt;
  }
  Product both = *form;
  if (shift->rows.is_same(form->left.source())) {
    both.ones = Ones::Right;
  } else if (shift->rows.is_same(form->right.source())) {
    both.ones = Ones::Left;
  } else {
    return std::nullopt;
  }
  Terms result(weight.samples(), weight.numel());
  result.add({both, 0, weight.numel()});
  return result;
}

}  // namespace dds::hooks
