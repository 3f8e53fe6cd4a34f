// Patterns on names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace dds {

/// True if `text` matches the glob `pattern`: '*' any text, '?' one character.
bool glob_match(std::string_view pattern, std::string_view text);

/// True if `pattern` matches one of `names`.
bool glob_match_any(std::string_view pattern, std::span<const std::string> names);

}  // namespace dds
