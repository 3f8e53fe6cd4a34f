#include "src/base/logger.hpp"

#include <mutex>
#include <utility>

namespace dds {
namespace {

struct Installed {
  std::mutex mutex;
  Logger logger;  ///< under mutex
  Level least = Level::Info;
};

/// Never destroyed: a static monitor may still log while statics are destroyed.
Installed& installed() {
  static auto* const one = new Installed;
  return *one;
}

}  // namespace

std::string_view to_string(Level level) {
  switch (level) {
    case Level::Debug:
      return "debug";
    case Level::Info:
      return "info";
    case Level::Warning:
      return "warning";
    case Level::Error:
      return "error";
  }
  return "";
}

Logger set_logger(Logger logger, Level least) {
  const std::lock_guard lock(installed().mutex);
  installed().least = least;
  return std::exchange(installed().logger, std::move(logger));
}

void log::tell(Level level, const std::string& message) noexcept {
  try {
    const std::lock_guard lock(installed().mutex);
    if (installed().logger && level >= installed().least) installed().logger(level, message);
  } catch (...) {
    // Work must not end because a message could not be passed on.
  }
}

}  // namespace dds
