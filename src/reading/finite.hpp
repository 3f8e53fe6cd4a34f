// Whose fault it is that a reading is not finite: the probe's, or the network's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/model.hpp>
#include <dds/recorder.hpp>
#include <string>
#include <vector>

namespace dds {

/// Throws InvalidArgument if an input of the batch has a NaN or an infinity that reached what was captured or `output`,
/// and all parameters are finite. A network may take such inputs as a mask and drop them: then nothing is thrown.
/// `first`: the number of the batch's first sample, for the message.
void check_finite_inputs(const Data& batch, std::int64_t first, const Captured& captured, const at::Tensor& output,
                         const std::vector<at::Tensor>& parameters);

/// The same for the targets, of which `losses` were made.
void check_finite_targets(const Data& batch, std::int64_t first, const at::Tensor& output, const at::Tensor& losses);

}  // namespace dds
