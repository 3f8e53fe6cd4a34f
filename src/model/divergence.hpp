// The Kullback-Leibler divergence, to the rounding of a square.
#pragma once

#include <ATen/core/Tensor.h>

namespace dds {

/// Entries p* (e^d - 1 - d), d = log p - log p*, which sum to KL(p* || p) over a distribution: no difference of large
/// numbers where p is near p*, so that the rounding floor is that of a square.
at::Tensor divergence_terms(const at::Tensor& frozen_log_p, const at::Tensor& log_p);

}  // namespace dds
