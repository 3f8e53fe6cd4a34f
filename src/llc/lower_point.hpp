// Points below w* that chains lead to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "src/llc/objective.hpp"

namespace dds {

struct LowerPoint {
  double f = 0;             ///< F there
  std::int64_t passes = 0;  ///< forward and backward passes
};

/// Goes down U = F + gamma/2 |w - w*|^2 from `weights` by L-BFGS, in at most 60 steps. `h_max`: the largest curvature
/// of U. `stop` is asked before each step. Moves the replica.
LowerPoint lower_point(const Objective& objective, const Replica& replica, const at::Tensor& weights, double n_beta,
                       double gamma, double h_max, const std::function<bool()>& stop);

}  // namespace dds
