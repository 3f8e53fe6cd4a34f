// JSON from files that anybody may have written, and of strings that may be any bytes.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>

#include "src/base/check.hpp"

namespace dds::log {

/// Levels of arrays and objects within each other that a text may have.
inline constexpr int kDeepestJson = 100;

/// Keys that an object may have whose order is kept: each is looked for among those before it, one by one.
inline constexpr int kMostKeys = 4096;

/// What the text holds; discarded (is_discarded()) if that is no JSON, or deeper: values are copied and written by
/// recursion, for which a file of brackets could use up the stack. Throws InvalidArgument for more keys.
template <class Json = nlohmann::ordered_json>
Json parse_json(std::string_view text) {
  int depth = 0;
  std::array<int, kDeepestJson + 1> keys{};  // of the object at each depth
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
      keys[static_cast<std::size_t>(depth)] = 0;
    } else if (c == ']' || c == '}') {
      if (--depth < 0) return Json(Json::value_t::discarded);
    } else if (c == ':' && std::is_same_v<Json, nlohmann::ordered_json>) {
      if (++keys[static_cast<std::size_t>(depth)] > kMostKeys)
        throw_invalid("JSON", "the number of keys of an object", fmt::format("above {}", kMostKeys),
                      fmt::format("at most {}", kMostKeys));
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

/// The value that Sink::describe is given under a key. Throws InvalidArgument if it is no JSON.
inline nlohmann::ordered_json described_value(const std::string& key, const std::string& json) {
  nlohmann::ordered_json value = parse_json(json);
  check(!value.is_discarded(), "describe", fmt::format("the value of '{}'", key), json, "JSON");
  return value;
}

}  // namespace dds::log
