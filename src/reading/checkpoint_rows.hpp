// The rows of a checkpoint: a probe set in batches through the model, forward and backward.
#pragma once

#include <dds/problem.hpp>
#include <dds/read.hpp>

#include "src/rows/reading_rows.hpp"

namespace dds {

/// The rows of every selected layer, reduced. The model is left as it was.
/// Throws what dds::read does.
ReadingRows checkpoint_rows(const Problem& problem, const ReadOptions& options);

}  // namespace dds
