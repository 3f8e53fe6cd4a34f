#include "src/model/divergence.hpp"

#include <ATen/ops/expm1.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace dds {

at::Tensor divergence_terms(const at::Tensor& frozen_log_p, const at::Tensor& log_p) {
  const at::Tensor d = log_p.sub(frozen_log_p);
  // e^d - 1 - d: its Taylor series where the subtraction would cancel; both branches are finite for autograd's sake.
  const at::Tensor near = d.abs().lt(1e-2);
  const at::Tensor small = at::where(near, d, at::zeros_like(d)), large = at::where(near, at::ones_like(d), d);
  const at::Tensor series = small.mul(small).mul(
      small.mul(small.mul(small.mul(small.div(720).add(1.0 / 120)).add(1.0 / 24)).add(1.0 / 6)).add(0.5));
  return frozen_log_p.exp().mul(at::where(near, series, at::expm1(large).sub(large)));
}

}  // namespace dds
