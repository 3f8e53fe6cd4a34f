// Whether an estimate can be believed.
#pragma once

#include <dds/llc.hpp>
#include <string>

namespace dds {

/// What only the run itself knows of its end; empty texts where nothing is to be said.
struct Ending {
  std::string stopped;         ///< why it ended early
  std::string gamma_limited;   ///< where a search for gamma found none: lambda at the last two
  bool gamma_settled = false;  ///< a search found one
};

/// Fills `estimate.failures` from its numbers: each failure a short sentence with the number and its bound.
void judge(LlcEstimate& estimate, const LlcOptions& options, const Ending& ending);

}  // namespace dds
