// Whether an estimate can be believed.
#pragma once

#include <dds/llc.hpp>
#include <string>

namespace dds {

/// How a run ended. Texts are empty where they do not apply.
struct Ending {
  std::string stopped;         ///< why it ended early
  std::string gamma_limited;   ///< the failure, where a search found no gamma that is low enough
  bool gamma_settled = false;  ///< a search found one
  bool halves_step = false;    ///< an estimate at half the step was due
};

/// Fills `estimate.failures` from its numbers: each failure a short sentence with the number and its bound.
void judge(LlcEstimate& estimate, const LlcOptions& options, const Ending& ending);

}  // namespace dds
