// The vector arithmetic of a chain's step on tensors: fused on the CPU (kernels.hpp), ATen's operators elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "src/llc/kernels.hpp"

namespace dds {

/// kernels::Pass with tensors: one flat one of all weights each, but for the gradient, which comes in parts in the
/// order of the weights (an undefined part, with its size, is zero).
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

/// See kernels::run.
kernels::Sums run(const WeightPass& pass);

/// Room for the noise that is carried from step to step, filled with that of `key`.
at::Tensor carried_noise_like(const at::Tensor& weights, const kernels::RandomKey& key);

}  // namespace dds
