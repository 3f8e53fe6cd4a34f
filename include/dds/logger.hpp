// Messages of the library. It never prints them itself: they go to the logger, if one is set.
//
//   dds::set_logger([](dds::Level level, std::string_view message) {
//     spdlog::log(static_cast<spdlog::level::level_enum>(level), message);
//   });
#pragma once

#include <dds/export.hpp>
#include <functional>
#include <string_view>

namespace DDS_EXPORT dds {

/// Importance of a message. The numbers are those of spdlog's levels.
enum class Level {
  Debug = 1,    ///< every reading, and how long it took
  Info = 2,     ///< what was written, and where
  Warning = 3,  ///< a result is less than it could be: fp64 not available, a torn row cut off, a reading left out
  Error = 4     ///< an error that cannot be thrown, such as one in a destructor
};

/// "debug", "info", "warning" or "error".
std::string_view to_string(Level level);

using Logger = std::function<void(Level, std::string_view message)>;

/// Sets the logger for the whole process. It gets every message of level `least` or above.
/// - A message is one line, without a line end.
/// - An empty logger, the default, makes the library silent.
/// - The logger must not call set_logger. What it throws is dropped.
/// Threads: the logger is called from any thread, one at a time.
/// Result: the previous logger.
Logger set_logger(Logger logger, Level least = Level::Info);

}  // namespace dds
