// The order of a direction (dds/order.hpp) in the weights of a torch::nn model.
//
//   auto signature = ...;  // SignatureOptions().sides({dds::Side::Input}).dead_axes(true)
//   dds::WeightImage image(dds::Side::Input, signature.dead_axes);
//   dds::WeightDirection direction{{"fc2.weight", image.project(torch::randn({10, 64}))}};
//   auto order = dds::direction_order({*model, dds::categorical(), probe}, direction);   // a gauge: K stays zero
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/export.hpp>
#include <dds/order.hpp>
#include <dds/problem.hpp>
#include <map>
#include <string>

namespace DDS_EXPORT dds {

/// A direction in weight space: tensors by the full names of the parameters that it moves. All other parameters stay.
/// Its length does not matter. Tied weights are one parameter, under any of their names.
using WeightDirection = std::map<std::string, at::Tensor>;

/// The order of `direction` at the model's present weights w*. With x_i the inputs of the problem's data (the *probe*),
///   K(w) = (1/n) sum_i KL(p(. | x_i, w*) || p(. | x_i, w)),
/// from Likelihood::divergence. The search moves all parameters that require grad, and |t| is a distance among these.
///
/// Runs in fp64 and in eval mode, on the model's own device. All of the probe goes through in one pass with its double
/// backward: a few hundred samples are a good size.
/// Left as they were: weights, buffers, gradients, mode, default generator. Recorders of this thread see nothing of it.
/// Not while another thread trains the model.
///
/// Valid input: a likelihood with a divergence (not the user's own); a direction whose names are of parameters that
/// require grad, each with that parameter's shape; a forward that runs in fp64 and is twice differentiable; otherwise
/// as direction_order in order.hpp.
/// Throws InvalidArgument for any other, and what `forward` throws.
DirectionOrder direction_order(const Problem& problem, const WeightDirection& direction,
                               const OrderOptions& options = {});

}  // namespace dds
