// K as a function of all weights, with its derivatives: what the search for the order of a direction needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/order.hpp>

namespace dds {

class Landscape {
 public:
  virtual ~Landscape() = default;

  /// K at `weights` (p, fp64).
  virtual double value(const at::Tensor& weights) = 0;
  /// The gradient of K at `weights`.
  virtual at::Tensor gradient(const at::Tensor& weights) = 0;
  /// The Hessian of K at the point of the last call of gradient(), times v.
  virtual at::Tensor curvature(const at::Tensor& v) = 0;
};

/// The order of a direction (dds/order.hpp) in any landscape.
DirectionOrder direction_order(Landscape& landscape, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options);

}  // namespace dds
