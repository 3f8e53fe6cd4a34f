// Per-sample gradients of a parameter in factored form, and what is computed from them without writing them out.
//
// Every use of a parameter by an operator contributes one term. Over the positions p of sample i (of a sequence, of an
// image, of several calls) a product contributes
//   g_i = sum_p left_ip (x) right_ip,
// and the inner products of two samples, which make up K_l, can be contracted in two orders:
//   over positions  sum_pp' (left_ip . left_jp') (right_ip . right_jp')   n^2 P^2 (r + c) multiplications
//   over entries    vec(g_i) . vec(g_j)                                   n P r c + n^2 r c
// The cheaper one is taken. Both work in blocks, so that no temporary is larger than a given number of bytes.
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

/// Which side of a product has a column of ones beside its features: the bias is taken along.
enum class Ones { None, Left, Right };

/// Entry (g, r, c) = sum_p left(g, p, r) right(g, p, c).
struct Product {
  Factor left, right;
  Ones ones = Ones::None;
};

/// Entry (indices(p), f) += rows(p, f): rows (n, p, f), indices (n, p) of int64 below `count`.
struct Lookup {
  at::Tensor rows, indices;
  std::int64_t count = 0;
};

/// Entry (g, f) = sum_p rows(g, p, f): rows (n, g, p, f).
struct Sum {
  at::Tensor rows;
};

/// The entries themselves: rows (n, m).
struct Dense {
  at::Tensor rows;
};

/// What one operator contributes to the entries [begin, begin + size) of a parameter, in the order of memory.
struct Term {
  std::variant<Product, Lookup, Sum, Dense> form;
  std::int64_t begin = 0;
  std::int64_t size = 0;
};

/// Entries [begin, end) of one form, counted within it: n x (end - begin). For Product and Lookup both are multiples of
/// unit_of().
at::Tensor entries_of(const Product& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Lookup& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Sum& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);
at::Tensor entries_of(const Dense& form, std::int64_t begin, std::int64_t end, std::int64_t max_bytes);

/// The sum over samples of one form: all its entries.
at::Tensor sum_of(const Product& form, std::int64_t max_bytes);
at::Tensor sum_of(const Lookup& form, std::int64_t max_bytes);
at::Tensor sum_of(const Sum& form, std::int64_t max_bytes);
at::Tensor sum_of(const Dense& form, std::int64_t max_bytes);

/// Entries that are computed together: slabs of a term begin and end at multiples of it.
std::int64_t unit_of(const Term& term);

/// Per-sample gradients of one parameter: the sum of its terms.
class Terms {
 public:
  Terms(std::int64_t samples, std::int64_t numel) : samples_(samples), numel_(numel) {}

  /// Terms of the same shape at the same place are joined: further positions of one.
  void add(Term term);

  std::int64_t samples() const { return samples_; }
  std::int64_t numel() const { return numel_; }
  const std::vector<Term>& terms() const { return terms_; }

  /// Entries [begin, end) of the gradient of each sample: n x (end - begin).
  at::Tensor entries(std::int64_t begin, std::int64_t end, std::int64_t max_bytes) const;

  /// Calls visit with slabs of entries, n x m, that make up the whole.
  void for_each_slab(std::int64_t max_bytes, const std::function<void(const at::Tensor&)>& visit) const;

  /// sum_i g_i: numel entries.
  at::Tensor sum(std::int64_t max_bytes) const;

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

/// If `bias` sums the very rows that are one side of the only product of `weight`: that product with ones, so that one
/// contraction serves both.
std::optional<Terms> joined_with_bias(const Terms& weight, const Terms& bias);

}  // namespace dds::hooks
