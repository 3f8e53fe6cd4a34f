#include "src/per_sample/terms.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>

namespace dds::hooks {
namespace {

std::int64_t product(at::IntArrayRef sizes) {
  std::int64_t result = 1;
  for (const std::int64_t size : sizes) result *= size;
  return result;
}

/// Samples of which `bytes` each fit into max_bytes; at least one.
std::int64_t block_of(std::int64_t samples, std::int64_t bytes, std::int64_t max_bytes) {
  return std::clamp<std::int64_t>(max_bytes / std::max<std::int64_t>(1, bytes), 1, samples);
}

/// The windows of images (b, k, channels, space...) as (b, g, k * positions, channels / g * kernel).
at::Tensor cut(const at::Tensor& images, std::int64_t groups, const Windows& windows) {
  const std::size_t dims = windows.kernel.size();
  std::vector<std::int64_t> padding;  // last dimension first
  for (std::size_t i = dims; i-- > 0;) {
    padding.push_back(windows.before[i]);
    padding.push_back(windows.after[i]);
  }
  const bool padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t p) { return p != 0; });
  const at::Tensor image = (padded ? at::constant_pad_nd(images, padding) : images).contiguous();

  const std::int64_t b = image.size(0), k = image.size(1), channels = image.size(2) / groups;
  std::vector<std::int64_t> sizes{b, groups, channels},
      strides{image.stride(0), channels * image.stride(2), image.stride(2)};
  for (std::size_t i = 0; i < dims; ++i) {
    sizes.push_back(windows.kernel[i]);
    strides.push_back(windows.dilation[i] * image.stride(static_cast<std::int64_t>(i) + 3));
  }
  sizes.push_back(k);
  strides.push_back(image.stride(1));
  for (std::size_t i = 0; i < dims; ++i) {
    sizes.push_back(windows.positions[i]);
    strides.push_back(windows.stride[i] * image.stride(static_cast<std::int64_t>(i) + 3));
  }
  // Positions last: they are what lies side by side in the image.
  return image.as_strided(sizes, strides)
      .reshape({b, groups, channels * product(windows.kernel), k * product(windows.positions)})
      .transpose(2, 3);
}

/// (b, g, p, f) -> (g, b p, f).
at::Tensor stacked(const at::Tensor& slice) {
  return slice.transpose(0, 1).reshape({slice.size(1), slice.size(0) * slice.size(2), slice.size(3)});
}

/// Inner products of the rows of samples [b, e) with those of [c, d): (g, (e - b) p, (d - c) p).
at::Tensor inner(const Factor& factor, std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
  return at::bmm(stacked(factor.slice(b, e)), stacked(factor.slice(c, d)).transpose(1, 2));
}

/// Fills in sums over positions and groups of left-inner times right-inner, block by block to the right of the
/// diagonal.
template <class Left, class Right>
void add_over_positions(at::Tensor& sum, std::int64_t groups, std::int64_t positions, std::int64_t max_bytes,
                        std::int64_t element, const Left& left, const Right& right) {
  const std::int64_t n = sum.size(0);
  const std::int64_t pair_bytes = 2 * groups * positions * positions * element;
  // A quarter at a time leaves out most of the lower triangle, and keeps the products large.
  const std::int64_t quarter = n < 128 ? n : (n + 3) / 4;
  const std::int64_t rows = std::min(quarter, block_of(n, quarter * pair_bytes, max_bytes));
  const std::int64_t columns = block_of(n, rows * pair_bytes, max_bytes);
  for (std::int64_t b = 0; b < n; b += rows) {
    const std::int64_t e = std::min(n, b + rows);
    for (std::int64_t c = b; c < n; c += columns) {
      const std::int64_t d = std::min(n, c + columns);
      const at::Tensor both = left(b, e, c, d).mul_(right(b, e, c, d));
      at::Tensor target = sum.narrow(0, b, e - b).narrow(1, c, d - c);
      if (groups == 1 && positions == 1) {
        target.add_(both.squeeze(0));
      } else {
        target.add_(both.view({groups, e - b, positions, d - c, positions}).sum({0, 2, 4}));
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

bool positions_are_cheaper(double n, double positions, double rows, double columns) {
  return n * n * positions * positions * (rows + columns) <=
         2 * n * positions * rows * columns + n * n * rows * columns;
}

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

// ---- where the entries lie ----

/// Axes as one: entries in their order at multiples of one stride. Empty if they are not.
std::optional<Axis> joined(const std::vector<Axis>& axes) {
  Axis result{1, 1};
  for (std::size_t i = axes.size(); i-- > 0;) {
    if (axes[i].size == 1) continue;
    if (result.size == 1) {
      result = axes[i];
    } else if (axes[i].stride == result.size * result.stride) {
      result.size *= axes[i].size;
    } else {
      return std::nullopt;
    }
  }
  return result;
}

bool in_order(const std::vector<std::vector<Axis>*>& groups) {
  std::int64_t step = 1;
  for (std::size_t i = groups.size(); i-- > 0;) {
    const auto axis = joined(*groups[i]);
    if (!axis || (axis->size > 1 && axis->stride != step)) return false;
    step *= axis->size;
  }
  return true;
}

std::int64_t size_of(const std::vector<Axis>& axes) {
  std::int64_t size = 1;
  for (const Axis& axis : axes) size *= axis.size;
  return size;
}

}  // namespace

// ---- factors ----

Factor::Factor(at::Tensor rows)
    : source_(std::move(rows)), groups_(source_.size(1)), positions_(source_.size(2)), features_(source_.size(3)) {}

Factor::Factor(at::Tensor image, std::int64_t groups, Windows windows)
    : source_(std::move(image)), windows_(std::move(windows)), cut_(true), groups_(groups) {
  positions_ = source_.size(1) * product(windows_.positions);
  features_ = source_.size(2) / groups * product(windows_.kernel);
}

at::Tensor Factor::slice(std::int64_t begin, std::int64_t end) const {
  const at::Tensor part = source_.narrow(0, begin, end - begin);
  return cut_ ? cut(part, groups_, windows_) : part;
}

// ---- placing ----

Term place(std::variant<Product, Lookup, Sum, Dense> form, const std::vector<Axis>& axes, std::int64_t offset,
           std::int64_t numel) {
  std::vector<Axis> all = axes;
  const std::int64_t size = size_of(axes);
  Term term{std::move(form), offset, size};
  if (in_order({&all})) return term;
  // The index in memory of every entry.
  at::Tensor whole = std::visit([&](const auto& f) { return entries_of(f, 0, size, INT64_MAX); }, term.form);
  at::Tensor index = at::arange(1, whole.options().dtype(at::kLong));
  for (const Axis& axis : axes) {
    index = index.unsqueeze(-1).add(at::arange(axis.size, index.options()).mul(axis.stride)).flatten();
  }
  const at::Tensor rows =
      at::zeros({whole.size(0), numel}, whole.options()).index_add(1, index.add(offset), whole.contiguous());
  return {Dense{rows}, 0, numel};
}

Term place_product(Product product, std::vector<Axis> groups, std::vector<Axis> rows, std::vector<Axis> columns,
                   std::int64_t offset, std::int64_t numel) {
  if (in_order({&groups, &columns, &rows})) {
    std::swap(product.left, product.right);
    std::swap(rows, columns);
  }
  std::vector<Axis> axes = std::move(groups);
  axes.insert(axes.end(), rows.begin(), rows.end());
  axes.insert(axes.end(), columns.begin(), columns.end());
  return place(std::move(product), axes, offset, numel);
}

// ---- the sum of terms ----

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
      return form->left.source().square().sum({2, 3}).mul(form->right.source().square().sum({2, 3})).sum(1);
    }
    if (p * (r + c) < r * c) {
      const std::int64_t element = form->left.source().element_size();
      const std::int64_t block = block_of(samples_, form->left.groups() * p * (2 * p + r + c) * element, max_bytes);
      std::vector<at::Tensor> norms;
      for (std::int64_t b = 0; b < samples_; b += block) {
        const std::int64_t e = std::min(samples_, b + block);
        const at::Tensor left = form->left.slice(b, e), right = form->right.slice(b, e);
        norms.push_back(
            at::matmul(left, left.transpose(2, 3)).mul_(at::matmul(right, right.transpose(2, 3))).sum({1, 2, 3}));
      }
      return at::cat(norms);
    }
  }
  at::Tensor sum;
  for_each_slab(max_bytes, [&](const at::Tensor& slab) {
    const at::Tensor squares = slab.square().sum(1);
    sum = sum.defined() ? sum.add_(squares) : squares;
  });
  return sum;
}

void Terms::add_gram(at::Tensor& sum, std::int64_t max_bytes) const {
  const std::int64_t element = sum.element_size();
  const auto n = static_cast<double>(samples_);
  std::vector<const Term*> rest;
  for (const Term& term : terms_) {
    // Terms that lie apart have no cross terms.
    const bool alone = std::all_of(terms_.begin(), terms_.end(), [&](const Term& other) {
      return &other == &term || other.begin >= term.begin + term.size || term.begin >= other.begin + other.size;
    });
    if (!alone) {
      rest.push_back(&term);
    } else if (const auto* form = std::get_if<Product>(&term.form);
               form &&
               (form->ones != Ones::None || positions_are_cheaper(n, static_cast<double>(form->left.positions()),
                                                                  static_cast<double>(form->left.features()),
                                                                  static_cast<double>(form->right.features())))) {
      const auto side = [](const Factor& factor, bool ones) {
        return [&factor, ones](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
          at::Tensor products = inner(factor, b, e, c, d);
          return ones ? products.add_(1) : products;
        };
      };
      add_over_positions(sum, form->left.groups(), form->left.positions(), max_bytes, element,
                         side(form->left, form->ones == Ones::Left), side(form->right, form->ones == Ones::Right));
    } else if (const auto* lookup = std::get_if<Lookup>(&term.form);
               lookup &&
               positions_are_cheaper(n, static_cast<double>(lookup->rows.size(1)),
                                     static_cast<double>(lookup->rows.size(2)), static_cast<double>(lookup->count))) {
      const Factor rows(lookup->rows.unsqueeze(1));
      const auto same = [&](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) {
        return lookup->indices.narrow(0, b, e - b)
            .reshape({1, -1, 1})
            .eq(lookup->indices.narrow(0, c, d - c).reshape({1, 1, -1}));
      };
      add_over_positions(
          sum, 1, lookup->rows.size(1), max_bytes, element,
          [&](std::int64_t b, std::int64_t e, std::int64_t c, std::int64_t d) { return inner(rows, b, e, c, d); },
          same);
    } else {
      Terms one(samples_, term.size);
      one.add({term.form, 0, term.size});
      one.for_each_slab(max_bytes, [&](const at::Tensor& slab) { add_symmetric(sum, slab); });
    }
  }
  if (rest.empty()) return;
  Terms together(samples_, numel_);
  for (const Term* term : rest) together.terms_.push_back(*term);
  together.for_each_slab(max_bytes, [&](const at::Tensor& slab) { add_symmetric(sum, slab); });
}

std::optional<Terms> joined_with_bias(const Terms& weight, const Terms& bias) {
  if (weight.terms().size() != 1 || bias.terms().size() != 1) return std::nullopt;
  const auto* form = std::get_if<Product>(&weight.terms().front().form);
  const auto* shift = std::get_if<Sum>(&bias.terms().front().form);
  if (!form || !shift) return std::nullopt;
  const auto n = static_cast<double>(weight.samples());
  if (!positions_are_cheaper(n, static_cast<double>(form->left.positions()), static_cast<double>(form->left.features()),
                             static_cast<double>(form->right.features()))) {
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
