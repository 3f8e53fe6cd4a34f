// How the library sends a message to the logger of <dds/logger.hpp>.
#pragma once

#include <dds/logger.hpp>
#include <string>

namespace dds::log {

/// Gives a message to the user's logger, if there is one and it takes this level.
void tell(Level level, const std::string& message) noexcept;

}  // namespace dds::log
