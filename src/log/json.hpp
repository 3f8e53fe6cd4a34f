// JSON from files that anybody may have written, and of strings that may be any bytes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dds::log {

/// Levels of arrays and objects within each other that a text may have.
inline constexpr int kDeepestJson = 100;

/// What the text holds; discarded (is_discarded()) if that is no JSON, or deeper: values are copied and written by
/// recursion, for which a file of brackets could use up the stack.
template <class Json = nlohmann::ordered_json>
Json parse_json(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson) return Json(Json::value_t::discarded);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

/// The text of a value, on one line unless there is an `indent`. What is no UTF-8 in its strings, which come from
/// users' names and paths, becomes U+FFFD; Json::dump alone would throw.
template <class Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dds::log
