// What the rounding of a loss's gradient is measured by: noise_floor's T and |delta_out|.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace dds {

/// T and |delta_out| of the rows of a reading, both as norms of Frobenius over all of them: rows that join add their
/// squares. All tensors are 0-d and fp64, on the loss's device, which nothing here waits for.
class Cancellation {
 public:
  /// Of no rows: a factor of 1.
  Cancellation() = default;
  Cancellation(const at::Tensor& terms, const at::Tensor& difference)
      : terms_(terms.square()), difference_(difference.square()) {}
  /// Of rows from a loss that nothing is known of.
  static Cancellation unknown();

  /// The other's may be on another device.
  void add(const Cancellation& other);
  /// The same rows multiplied by `factor` (undefined: 1).
  Cancellation scaled(const at::Tensor& factor) const;

  bool known() const { return known_; }
  /// 1 + T / |delta_out|; 1 where delta_out is zero, since then so are all rows. Undefined unless known, and for no
  /// rows.
  at::Tensor factor() const;

  /// For another process: known, and the squares, which are undefined for no rows.
  struct Parts {
    bool known;
    at::Tensor terms, difference;
  };
  Parts parts() const { return {known_, terms_, difference_}; }
  explicit Cancellation(Parts parts)
      : known_(parts.known), terms_(std::move(parts.terms)), difference_(std::move(parts.difference)) {}

 private:
  bool known_ = true;
  at::Tensor terms_, difference_;  ///< squared; undefined: no rows
};

/// Norm of Frobenius of a tensor of any floating type, summed in fp64 without a copy of more than some MiB.
at::Tensor norm_of(const at::Tensor& tensor);

/// T of delta = weight (p - y), p the softmax of `logits` over dimension `classes`. Each row of p is rounded by u, and
/// moves with the rounding of its logits by at most half as much: sqrt(rows) + |z| / 2. `weight` is undefined (1), 0-d,
/// or has one entry for each row.
at::Tensor softmax_terms(const at::Tensor& logits, std::int64_t classes, const at::Tensor& weight = {});

/// T of delta = weight (p - y), p the logistic function of `logits`, whose slope is at most 1/4: sqrt(entries) + |z|
/// / 4.
at::Tensor logistic_terms(const at::Tensor& logits, const at::Tensor& weight = {});

/// T of delta = weight (f - y): |weight f|.
at::Tensor square_terms(const at::Tensor& outputs, const at::Tensor& weight = {});

}  // namespace dds
