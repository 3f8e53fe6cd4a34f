// How the loss that is differentiated relates to the losses of the samples.
#pragma once

#include <dds/export.hpp>
#include <optional>

namespace DDS_EXPORT dds {

/// The rows of the Fisher side are delta_i, the gradients of the per-sample losses l_i. A training differentiates one
/// loss L of the batch instead, and this says what L is.
class Reduction {
 public:
  enum Kind {
    Sum,   ///< L = sum_i l_i
    Mean,  ///< L is an average. The loss operator that runs tells what it divides by (cross entropy: the targets that
           ///< count; squared error: all entries), and that division is undone. What the caller's own code divides the
           ///< operator's result by, or weights it with, is not seen: then use Reduction(divisor)
  };
  Reduction(Kind kind) : kind_(kind) {}
  /// L = (sum_i l_i) / divisor.
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
