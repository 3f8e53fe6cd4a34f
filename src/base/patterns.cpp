#include <algorithm>
#include <dds/patterns.hpp>
#include <utility>

#include "src/base/check.hpp"
#include "src/base/glob.hpp"

namespace dds {

Patterns::Patterns(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {
  check_not_empty("Patterns", "patterns", patterns_, "at least one, or std::nullopt for all names");
}

bool Patterns::select(std::string_view name) const {
  return all() || std::any_of(patterns_.begin(), patterns_.end(),
                              [&](const std::string& pattern) { return glob_match(pattern, name); });
}

}  // namespace dds
