// The order of a direction (<dds/order.hpp>) in the weights of a torch::nn model.
//
//   auto signature = ...;  // SignatureOptions().sides({dds::Side::Input}).dead_axes(true)
//   dds::WeightImage image(dds::Side::Input, signature.dead_axes);
//   dds::WeightDirection direction{{"fc2.weight", image.project(torch::randn({10, 64}))}};
//   auto order = dds::direction_order({*model, dds::categorical(), probe}, direction);  // a gauge
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/export.hpp>
#include <dds/order.hpp>
#include <dds/problem.hpp>
#include <map>
#include <string>

namespace DDS_EXPORT dds {

/// A direction in weight space: full names of the parameters that it moves, each with a tensor of the parameter's
/// shape. All other parameters stay. The length of the direction does not matter. Tied weights are one parameter: use
/// any of its names.
using WeightDirection = std::map<std::string, at::Tensor>;

/// The order of `direction` at the model's present weights w*. x_i are the inputs of the problem's data (the *probe*):
///   K(w) = (1/n) sum_i KL(p(. | x_i, w*) || p(. | x_i, w)),   from Likelihood::divergence.
/// The search moves all parameters that require grad. |t| is the distance in the space of these.
///
/// It runs in fp64 and in eval mode, on the model's own device. The whole probe goes through each pass at once, double
/// backward included, so a few hundred samples are a good size.
/// The model's weights, buffers, gradients and mode, and the default generator, are left as they were. Recorders of
/// this thread do not see the passes. No other thread may train the model meanwhile.
///
/// Valid input:
///   a likelihood with Likelihood::divergence, which those made by likelihood() do not have;
///   names of parameters that require grad, each with a floating tensor of the parameter's shape, or a complex one for
///   a complex parameter, whose real and imaginary parts are weights;
///   a forward that runs in fp64 and is twice differentiable;
///   otherwise as direction_order in order.hpp.
/// Throws InvalidArgument for any other input, for an output that is undefined or changes its shape, and what `forward`
/// throws.
DirectionOrder direction_order(const Problem& problem, const WeightDirection& direction,
                               const OrderOptions& options = {});

}  // namespace dds
