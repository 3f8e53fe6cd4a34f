// What of a monitor is kept with a checkpoint, as the text that Monitor::state() gives.
#pragma once

#include <cstdint>
#include <dds/signature.hpp>
#include <map>
#include <string>

namespace dds {

struct SavedState {
  std::string parameters;  ///< identity_of the model's; empty: not known
  std::int64_t steps = 0;
  std::map<SeriesId, std::int64_t> fixed_ranks;
};

std::string text_of(const SavedState& state);

/// Throws InvalidArgument for any text that is none of those, with the value that is not as expected.
SavedState saved_state(const std::string& text);

}  // namespace dds
