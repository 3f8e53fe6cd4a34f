// The causes of dead directions that a run ends with, in plain sentences.
#pragma once

#include <cstdint>
#include <dds/run.hpp>
#include <string>
#include <vector>

namespace dds::log {

/// A cause in the last reading of a series, and since when it has been there.
struct LastingCause {
  const Signature* reading;
  const Cause* cause;
  std::int64_t since;  ///< step of the first reading of an unbroken row of readings with a cause of this kind
};

/// What the architecture does not leave out: the largest share of a width first, what has no cause last. From
/// checkpoint reads where the run has any, else from readings inside training steps. Points into `run`.
std::vector<LastingCause> lasting_causes(const Run& run);

/// "fc1: 9 of 32 units are off in every row since step 10 (3, 8, ...): a ReLU gives 0 for them, so no gradient reaches
/// them."
std::string sentence(const LastingCause& lasting);

}  // namespace dds::log
