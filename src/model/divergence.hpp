// The Kullback-Leibler divergence, with the rounding error of a square.
#pragma once

#include <ATen/core/Tensor.h>

namespace dds {

/// The terms p* (e^d - 1 - d), d = log p - log p*. Their sum over a distribution is KL(p* || p).
/// Error: no large numbers are subtracted where p is near p*, so the rounding floor is that of a square.
at::Tensor divergence_terms(const at::Tensor& frozen_log_p, const at::Tensor& log_p);

}  // namespace dds
