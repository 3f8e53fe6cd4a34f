// K over all weights, as the search for the order of a direction goes over it.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/order.hpp>

namespace dds {

class Landscape {
 public:
  virtual ~Landscape() = default;

  /// K at `weights` (p, fp64).
  virtual double value(const at::Tensor& weights) = 0;
  /// Goes to `weights` and gives the gradient of K there.
  virtual at::Tensor gradient(const at::Tensor& weights) = 0;
  /// The Hessian where gradient() went last, times v.
  virtual at::Tensor curvature(const at::Tensor& v) = 0;
};

/// direction_order over any landscape.
DirectionOrder direction_order(Landscape& landscape, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options);

/// Entries p* (e^d - 1 - d), d = log p - log p*, which sum to KL(p* || p) over a distribution: no difference of large
/// numbers where p is near p*, so that the rounding floor is that of a square.
at::Tensor divergence_terms(const at::Tensor& frozen_log_p, const at::Tensor& log_p);

}  // namespace dds
