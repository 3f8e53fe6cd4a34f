// Regions that hold a part of the density although no chain was there.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "src/llc/objective.hpp"
#include "src/llc/stage.hpp"

namespace dds {

struct Elsewhere {
  double gain = 0;          ///< of lambda, were they visited as often as their density asks for
  std::int64_t passes = 0;  ///< forward passes
};

/// What regions of high F add to lambda, by the density and by the chains: the gain is the difference. F above that of
/// 99 % of the chains' draws is high. By the density such regions add
///
///   E_0[exp(-F) (F - lambda); high] / (E_0[exp(-F); high] + B)
///
///   E_0   over draws of exp(-gamma/2 |w - w*|^2), those within `reach` of w*
///   B     an upper bound of E_0[exp(-F); the rest], exp(S - E[U]): S is the entropy of a Gaussian of the covariance of
///         the chains' draws there, less that of exp(-gamma/2 |w - w*|^2). No density of that covariance has more
///
/// Two standard errors are taken off the numerator. So chance seldom finds something, and what draws of E_0 miss is not
/// found. `weights`: draws of the stage, (draws, d). `stop` is asked before each draw. Moves the replica.
Elsewhere look_elsewhere(const Objective& objective, const Replica& replica, const Stage& stage,
                         const at::Tensor& weights, double n_beta, double reach, at::Generator generator,
                         const std::function<bool()>& stop);

}  // namespace dds
