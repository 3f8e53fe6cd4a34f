// How the loss that is differentiated relates to the losses of the samples.
#pragma once

#include <dds/export.hpp>
#include <optional>

namespace DDS_EXPORT dds {

/// The rows of the Fisher side are delta_i, the gradients of the per-sample losses l_i. A training differentiates one
/// loss L of the batch instead, and this says what L is.
///
/// With Sum and Mean, L is the result of a loss operator (mse_loss, cross_entropy, ...), times a factor c of the
/// caller's own: 1/4 for accumulation, the factor of a GradScaler, the mean over two heads. c is dL / d result,
/// measured in the backward pass, and is undone. A layer with several losses behind it needs one c for all of them. If
/// they differ, the largest must be 1: the others are then weights, and part of l_i. Class weights are part of l_i too.
/// What the caller's own code adds to L without a loss operator is divided by the same c.
///
/// Of an operator that leaves its terms unreduced, c is undone where each term counts with the same c, or with 0. With
/// Sum, other weights of terms are part of l_i. With Mean they leave open what the average divides by: such rows are
/// not read (Status::ReductionUnknown).
class Reduction {
 public:
  enum Kind {
    Sum,   ///< L = c sum_i l_i. Without a loss operator that the library knows, c is taken for 1
    Mean,  ///< L is an average. The operator tells what it divides by (cross entropy: the targets that count, with
           ///< class weights the sum of theirs; others: all entries), and that division is undone too
  };
  Reduction(Kind kind) : kind_(kind) {}
  /// L = (sum_i l_i) / divisor, whatever operators run.
  /// Throws InvalidArgument unless divisor is positive and finite.
  explicit Reduction(double divisor);

  /// Empty where there is a divisor.
  std::optional<Kind> kind() const { return kind_; }
  std::optional<double> divisor() const { return divisor_; }

 private:
  std::optional<Kind> kind_;
  std::optional<double> divisor_;
};

}  // namespace dds
