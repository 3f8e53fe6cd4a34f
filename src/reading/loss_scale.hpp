// What the gradients of a training step are multiplied with, so that they are those of the samples' own losses.
#pragma once

#include <cstdint>
#include <dds/recorder.hpp>
#include <dds/reduction.hpp>
#include <string>
#include <vector>

#include "src/rows/layer_rows.hpp"

namespace dds {

using Losses = std::vector<const CapturedLoss*>;

/// The losses that were computed from the output of `call` and that a backward pass came through.
Losses losses_of(const CapturedCall& call, const Captured& captured);

struct LossScale {
  RowScale scale;
  std::string name;  ///< for the record
  StatusSet status;
  std::int64_t targets = 0;  ///< number of targets of the mean; 0: there is no mean, or nobody knows
};

/// The scale of a call that went into `losses`. A loss that reduces to a sum or a mean is put back by
///
///   terms / factor,
///
/// where terms is what its mean divides by (a sum: 1), and factor is what the program multiplied the loss with before
/// the backward pass: d L / d loss. Several losses must have the same scale. Losses with the same number of terms may
/// have weights beside one that counts whole (largest factor 1): these weights are part of the samples' loss, and stay.
LossScale scale_of(const Reduction& reduction, const Losses& losses);

}  // namespace dds
