// Per-sample gradients of a parameter as sums of terms. Norms and inner products follow from the terms, and the
// gradients need not be written out.
//
// Each use of a parameter by an operator is a term. For a product, the term of sample i is a sum over its positions p.
// A position is a place in a sequence or in an image, in one call or in several:
//   g_i = sum_p left_ip (x) right_ip.
// K_l is made of inner products of two samples. There are two orders to compute them in:
//   over positions  sum_pp' (left_ip . left_jp') (right_ip . right_jp')   n^2 P^2 (r + c) multiplications
//   over entries    vec(g_i) . vec(g_j)                                   n P r c + n^2 r c
// The cheaper one is taken. Both work in blocks: no temporary takes more than a given number of bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "src/per_sample/factor.hpp"

namespace dds::hooks {

/// Which side of a product has a column of ones beside its features. This column makes the bias part of the product.
enum class Ones { None, Left, Right };

/// Entry (g, r, c) = sum_p left(g, p, r) right(g, p, c).
struct Product {
  Factor left, right;
  Ones ones = Ones::None;
};

/// Row p is added to the entries of row indices(p) of the parameter. rows: (n, p, f). indices: (n, p), int64, below
/// `count`.
struct Lookup {
  at::Tensor rows, indices;
  std::int64_t count = 0;
};

/// Entry (g, f) = sum_p rows(g, p, f). rows: (n, g, p, f).
struct Sum {
  at::Tensor rows;
};

/// The entries themselves. rows: (n, m).
struct Dense {
  at::Tensor rows;
};

/// What one operator adds to entries [begin, begin + size) of a parameter. Entries are counted in the order of memory.
struct Term {
  std::variant<Product, Lookup, Sum, Dense> form;
  std::int64_t begin = 0;
  std::int64_t size = 0;
};

/// Entries [begin, end) of one form: n x (end - begin). They are counted from the form's first. For Product and Lookup,
/// `begin` and `end` are multiples of unit_of().
at::Tensor entries_of(const Product& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Lookup& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Sum& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Dense& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);

/// Rows as real numbers: of complex ones the real and the imaginary parts, side by side.
at::Tensor real_rows(const at::Tensor& rows);

/// The sum over samples of all entries of one form.
at::Tensor sum_of(const Product& form, std::int64_t max_bytes);
at::Tensor sum_of(const Lookup& form, std::int64_t max_bytes);
at::Tensor sum_of(const Sum& form, std::int64_t max_bytes);
at::Tensor sum_of(const Dense& form, std::int64_t max_bytes);

/// How many entries are computed together. A slab of a term begins and ends at a multiple of it.
std::int64_t unit_of(const Term& term);

/// Per-sample gradients of one parameter: the sum of its terms.
class Terms {
 public:
  Terms(std::int64_t samples, std::int64_t numel) : samples_(samples), numel_(numel) {}

  /// A term with the shape and the place of an earlier one is joined to it: it has more positions of the same product.
  void add(Term term);

  std::int64_t samples() const { return samples_; }
  std::int64_t numel() const { return numel_; }
  const std::vector<Term>& terms() const { return terms_; }

  /// Entries [begin, end) of the gradient of each sample: n x (end - begin).
  at::Tensor entries(std::int64_t begin, std::int64_t end, std::int64_t max_bytes) const;

  /// Calls visit(slab) for slabs of entries, n x m, one after the other, until all entries were visited.
  void for_each_slab(std::int64_t max_bytes, const std::function<void(const at::Tensor&)>& visit) const;

  /// sum_i g_i: numel entries.
  at::Tensor sum(std::int64_t max_bytes) const;

  /// weights_i g_i in the place of g_i.
  Terms weighted(const at::Tensor& weights) const;

  /// |g_i|^2: n.
  at::Tensor squared_norms(std::int64_t max_bytes) const;

  /// Adds g_i . g_j to the upper triangle of `sum` (n x n).
  void add_gram(at::Tensor& sum, std::int64_t max_bytes) const;

 private:
  std::int64_t unit() const;
  bool lies_alone(const Term& term) const;

  std::int64_t samples_;
  std::int64_t numel_;
  std::vector<Term> terms_;
};

/// True if inner products over positions take fewer multiplications than the entries do.
bool positions_are_cheaper(std::int64_t samples, std::int64_t positions, std::int64_t rows, std::int64_t columns);

/// The weight's product with a column of ones, which gives both weight and bias in one contraction. There is one if
/// `weight` is a single product and `bias` sums the rows of one of its sides.
std::optional<Terms> joined_with_bias(const Terms& weight, const Terms& bias);

}  // namespace dds::hooks
