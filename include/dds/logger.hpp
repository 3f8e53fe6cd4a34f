// What the library has to say beside its results: it never prints, and says nothing until it is told where to.
//
//   dds::set_logger([](dds::Level level, std::string_view message) {
//     spdlog::log(static_cast<spdlog::level::level_enum>(level), message);
//   });
#pragma once

#include <dds/export.hpp>
#include <functional>
#include <string_view>

namespace DDS_EXPORT dds {

/// With the numbers of spdlog's levels.
enum class Level {
  Debug = 1,    ///< what is done: every reading, and what it took
  Info = 2,     ///< what was written, and where
  Warning = 3,  ///< a result that is not what it would be in the good case: fp64 not available, a torn row cut off, a
                ///< reading that was left out
  Error = 4     ///< an error that nobody else is told of, such as one that a destructor met
};

/// "debug", "info", "warning" or "error".
std::string_view to_string(Level level);

using Logger = std::function<void(Level, std::string_view message)>;

/// Gives every message of at least `least`, one line without its end, to `logger` from now on; an empty one (the
/// default) makes the library quiet. Messages come from any thread, one at a time; the logger must not call set_logger,
/// and what it throws is dropped. Returns the logger before.
Logger set_logger(Logger logger, Level least = Level::Info);

}  // namespace dds
