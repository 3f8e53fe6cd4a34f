// How much cancels in the gradient of a loss at the output: T and |delta_out| of the floor of the Fisher side
// (noise_floor in dds/spectrum.hpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace dds {

/// T and |delta_out| of the rows of a reading, as Frobenius norms over all rows. The squares of joined rows add.
/// All tensors are 0-d and fp64, on the device of the loss. Nothing here waits for the device.
class Cancellation {
 public:
  /// Of no rows.
  Cancellation() = default;
  Cancellation(const at::Tensor& terms, const at::Tensor& difference)
      : terms_(terms.square()), difference_(difference.square()) {}
  /// Of rows from an unknown loss.
  static Cancellation unknown();

  /// Joins the rows of `other`, which may be on another device.
  void add(const Cancellation& other);
  /// Of the same rows, multiplied by `factor` (undefined: 1).
  Cancellation scaled(const at::Tensor& factor) const;

  bool known() const { return known_; }
  /// 1 + T / |delta_out|. 1 where delta_out is zero, because all rows are zero then. Undefined for no rows and for an
  /// unknown loss.
  at::Tensor factor() const;

  /// For a message to another process: whether the loss is known, and the squares, undefined for no rows.
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

/// The Frobenius norm of a tensor of any floating type, summed in fp64. It copies at most some MiB at a time.
at::Tensor norm_of(const at::Tensor& tensor);

/// T of delta = weight (p - y), p the softmax of the logits z over dimension `classes`:
///   T = sqrt(rows) + |z| / 2
/// Each row of p is rounded by u, and moves by at most half of the rounding of its logits.
/// `weight`: undefined (1), 0-d, or an entry for each row.
at::Tensor softmax_terms(const at::Tensor& logits, std::int64_t classes, const at::Tensor& weight = {});

/// T of delta = weight (p - y), p the logistic function of the logits z, whose slope is at most 1/4:
///   T = sqrt(entries) + |z| / 4
at::Tensor logistic_terms(const at::Tensor& logits, const at::Tensor& weight = {});

/// T of delta = weight (f - y): |weight f|.
at::Tensor square_terms(const at::Tensor& outputs, const at::Tensor& weight = {});

}  // namespace dds
