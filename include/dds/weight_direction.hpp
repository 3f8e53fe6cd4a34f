// The order of a direction in the weights of a torch::nn model (dds/order.hpp): with a model, a likelihood, a probe and
// a direction there is nothing to write by hand.
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

/// A direction in weight space by the full names of the parameters that it moves; all others stay. Only its direction
/// counts, not its length. Tied weights are one parameter under any of their names.
using WeightDirection = std::map<std::string, at::Tensor>;

/// direction_order of K(w) = the mean over the samples of the data (the *probe*) of KL(p(. | x, w*) || p(. | x, w)), w*
/// the model's present weights: Likelihood::divergence. The search moves all parameters that require grad; frozen ones
/// stay, and so does the direction's distance t count in the norm of the weights that move. Runs in fp64 and eval mode
/// on the model's own device, all of the probe in one pass with its double backward, so a few hundred samples are a
/// good probe. The caller's weights, buffers, gradients, mode and default generator are left as they were, and
/// recorders of this thread do not see the passes. Not while another thread trains the model.
///
/// Throws InvalidArgument for a likelihood without a divergence (one of the user's own), a direction that names no such
/// parameter, one that does not require grad or is of another shape, and as direction_order does; and what `forward`
/// throws, which must be able to run in fp64 and be twice differentiable.
DirectionOrder direction_order(const Problem& problem, const WeightDirection& direction,
                               const OrderOptions& options = {});

}  // namespace dds
