// Patterns on names.
#pragma once

#include <string_view>

namespace dds {

/// True if `text` matches the glob `pattern`: '*' any text, '?' one character.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace dds
