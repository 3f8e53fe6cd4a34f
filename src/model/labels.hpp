// Targets that a reading does not use, and that can be wrong all the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/model.hpp>

namespace dds {

/// Throws InvalidArgument for targets that have the form of the likelihood's, but cannot be: classes beyond the last
/// one, probabilities beyond 1. They are of other data, or counted from 1. Targets of another form pass, undefined ones
/// too.
void check_labels(const Likelihood& likelihood, const at::Tensor& output, const at::Tensor& targets);

}  // namespace dds
