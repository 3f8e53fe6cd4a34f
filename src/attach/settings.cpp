#include "src/attach/settings.hpp"

#include <fmt/format.h>

#include <charconv>
#include <dds/error.hpp>
#include <string_view>

namespace dds::attach {
namespace {

std::int64_t number(std::string_view key, std::string_view text, std::int64_t least) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least) {
    throw InvalidArgument(fmt::format("{}={}: expected a whole number from {} on", key, text, least));
  }
  return value;
}

}  // namespace

Settings Settings::parse(const std::string& text) {
  Settings settings;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    if (item.empty()) continue;
    const std::size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    if (value.empty()) throw InvalidArgument(fmt::format("'{}': expected KEY=VALUE", item));
    if (key == "out") {
      settings.out = value;
    } else if (key == "every") {
      settings.every = number(key, value, 1);
    } else if (key == "layers") {
      settings.layers.emplace_back(value);
    } else if (key == "max_rows") {
      settings.max_rows = number(key, value, 1);
    } else if (key == "stop_after") {
      settings.stop_after = number(key, value, 0);
    } else if (key == "snapshots") {
      if (value != "0" && value != "1") throw InvalidArgument(fmt::format("{}={}: expected 0 or 1", key, value));
      settings.snapshots = value == "1";
    } else if (key == "list") {
      settings.list = value;
    } else if (key != "torch" && key != "plugin") {
      throw InvalidArgument(
          fmt::format("'{}': there is no such setting, expected out, every, layers, max_rows, stop_after, snapshots, "
                      "list, torch or "
                      "plugin",
                      key));
    }
  }
  return settings;
}

}  // namespace dds::attach
