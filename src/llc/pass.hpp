// One step of a chain on tensors: by the kernels (kernels.hpp) on the CPU in fp32 and fp64, by ATen's operators
// elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "src/llc/kernels.hpp"

namespace dds {

/// kernels::Pass with tensors. Each is one vector of all weights. Only the gradient comes in parts, in the order of the
/// weights. An undefined part stands for `size` zeros.
struct WeightPass {
  struct Part {
    at::Tensor gradient;
    std::int64_t size;
  };
  std::vector<Part> gradient;
  at::Tensor weights;
  at::Tensor start;
  at::Tensor slope;  ///< may be undefined
  at::Tensor scale;  ///< may be undefined
  double n_beta = 0;
  double gamma = 0;

  at::Tensor drift;  ///< written if defined
  at::Tensor moved;  ///< written if defined
  double eps = 0;
  double box = 0;
  kernels::RandomKey noise;
  at::Tensor carried;  ///< as carried_noise_like makes it; may be undefined
};

/// As kernels::run.
kernels::Sums run(const WeightPass& pass);

/// a . b, in the dtype of the vectors.
double inner_product(const at::Tensor& a, const at::Tensor& b);
/// |v|, in the dtype of the vector.
double length_of(const at::Tensor& v);

/// What `WeightPass::carried` needs before the first step: the noise of `key`.
at::Tensor carried_noise_like(const at::Tensor& weights, const kernels::RandomKey& key);

}  // namespace dds
