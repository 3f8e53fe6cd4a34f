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

}  // namespace dds
