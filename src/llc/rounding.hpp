// How far rounding takes the loss that chains see from the loss that is meant.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "src/llc/objective.hpp"

namespace dds {

/// The root mean square over `points` (weights) of the excess of the loss less that in fp64. Empty where the objective
/// is in fp64 or on mini-batches, and for a model that does not run in fp64. Moves the replica.
std::optional<double> rounding_of(const Objective& objective, const Replica& replica,
                                  const std::vector<at::Tensor>& points);

}  // namespace dds
