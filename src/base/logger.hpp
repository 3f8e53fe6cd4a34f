// The library's side of <dds/logger.hpp>.
#pragma once

#include <dds/logger.hpp>
#include <string>

namespace dds::log {

/// Gives a message to the user's logger, if there is one for this level.
void tell(Level level, const std::string& message) noexcept;

}  // namespace dds::log
