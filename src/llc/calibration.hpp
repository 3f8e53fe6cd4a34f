// The curvature of the loss, from products of its Hessian with vectors.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "src/llc/lanczos.hpp"
#include "src/llc/objective.hpp"

namespace dds {

/// Looks at the Hessian H of the mean loss over one batch, wherever a replica stands.
class CurvatureProbe {
 public:
  CurvatureProbe(const Objective& objective, Batch batch, at::Generator generator);

  /// The largest eigenvalue of H in absolute value, within a few per cent, by power iteration from where the last call
  /// ended. With `scale`, sqrt(P) of a diagonal preconditioner, that of sqrt(P) H sqrt(P).
  double largest(const Replica& replica, const at::Tensor& scale = {});

  /// The square of the root mean square of H's eigenvalues, by one product with a random vector; its relative error is
  /// of order 1 where few directions have all of the curvature.
  double mean_square(const Replica& replica);
  /// Directions in which H is negative, see `negative_directions`.
  std::vector<NegativeDirection> negative(const Replica& replica, const std::vector<at::Tensor>& known,
                                          const std::function<bool()>& stop);

  /// An upper bound of A = b^T (n_beta H + gamma)^-1 b, b = n_beta g, where n_beta H + gamma is positive: |b|^2/gamma,
  /// tightened by conjugate gradients. x_k being the iterate and r_k its residual, A <= b.x_k + |r_k|^2/gamma.
  double descent(const Replica& replica, const at::Tensor& g, double n_beta, double gamma);

  /// Passes spent: a product of the Hessian with a vector counts as two.
  std::int64_t gradients() const { return gradients_; }

 private:
  /// H at the replica's weights, ready to multiply. Where a model's backward has no derivative of its own, central
  /// differences of the gradient take its place.
  class Hessian;

  const Objective& objective_;
  Batch batch_;
  at::Generator generator_;
  at::Tensor direction_;  // where the last power iteration ended
  bool has_double_backward_ = true;
  std::int64_t gradients_ = 0;
};

}  // namespace dds
