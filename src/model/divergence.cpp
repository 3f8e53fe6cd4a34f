#include "src/model/divergence.hpp"

#include <ATen/ops/expm1.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace dds {

at::Tensor divergence_terms(const at::Tensor& frozen_log_p, const at::Tensor& log_p) {
  const at::Tensor d = log_p.sub(frozen_log_p);
  // e^d - 1 - d: its Taylor series where the subtraction would cancel, and p - p* (1 + d) where e^d may be no number.
  // All branches are finite for autograd's sake.
  const at::Tensor near = d.abs().lt(1e-2), far = d.gt(1);
  const at::Tensor small = at::where(near, d, at::zeros_like(d)), ones = at::ones_like(d);
  const at::Tensor large = at::where(near.logical_or(far), ones, d);
  const at::Tensor series = small.mul(small).mul(
      small.mul(small.mul(small.mul(small.div(720).add(1.0 / 120)).add(1.0 / 24)).add(1.0 / 6)).add(0.5));
  const at::Tensor frozen_p = frozen_log_p.exp();
  const at::Tensor within_reach = frozen_p.mul(at::where(near, series, at::expm1(large).sub(large)));
  return at::where(far, log_p.exp().sub(frozen_p.mul(d.add(1))), within_reach);
}

}  // namespace dds
