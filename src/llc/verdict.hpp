// Whether an estimate can be believed.
#pragma once

#include <dds/llc.hpp>

namespace dds {

/// Fills `estimate.failures` from its numbers: each failure a short sentence with the number and its bound.
void judge(LlcEstimate& estimate, const LlcOptions& options);

}  // namespace dds
