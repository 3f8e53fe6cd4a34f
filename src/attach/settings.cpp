#include "src/attach/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "src/attach/names.hpp"
#include "src/base/check.hpp"

namespace dds::attach {
namespace {

std::int64_t number(std::string_view key, std::string_view text, std::int64_t least) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size() && value >= least, kVariable, key, text,
        "a whole number from {} on", least);
  return value;
}

void assign(Settings& settings, std::string_view key, std::string_view value) {
  if (key == key::kOut) {
    settings.out = value;
  } else if (key == key::kEvery) {
    settings.every = number(key, value, 1);
  } else if (key == key::kLayers) {
    settings.layers.emplace_back(value);
  } else if (key == key::kMaxRows) {
    settings.max_rows = number(key, value, 1);
  } else if (key == key::kStopAfter) {
    settings.stop_after = number(key, value, 0);
  } else if (key == key::kSnapshots) {
    check(value == "0" || value == "1", kVariable, key, value, "0 or 1");
    settings.snapshots = value == "1";
  } else if (key == key::kList) {
    settings.list = value;
  } else if (key == key::kTorch) {
    settings.torch = value;
  } else if (key == key::kPlugin) {
    settings.plugin = value;
  } else {
    throw_invalid(kVariable, "key", value_text(key),
                  fmt::format("{}, {}, {}, {}, {}, {}, {}, {} or {}", key::kOut, key::kEvery, key::kLayers,
                              key::kMaxRows, key::kStopAfter, key::kSnapshots, key::kList, key::kTorch, key::kPlugin));
  }
}

}  // namespace

Settings Settings::parse(const std::string& text) {
  Settings settings;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(kSeparator));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    if (item.empty()) continue;
    const std::size_t equals = item.find('=');
    check(equals != std::string_view::npos && equals + 1 < item.size(), kVariable, "entry", item, "KEY=VALUE");
    assign(settings, item.substr(0, equals), item.substr(equals + 1));
  }
  return settings;
}

std::string Settings::text() const {
  std::string text;
  const auto add = [&](const char* key, const std::string& value) {
    if (value.empty()) return;
    check(value.find(kSeparator) == std::string::npos, "attach", key, value,
          "no colon, which separates the settings in {}", kVariable);
    if (!text.empty()) text += kSeparator;
    text += fmt::format("{}={}", key, value);
  };
  add(key::kPlugin, plugin.string());
  add(key::kTorch, torch.string());
  add(key::kOut, out.string());
  add(key::kEvery, std::to_string(every));
  add(key::kMaxRows, std::to_string(max_rows));
  for (const std::string& pattern : layers) add(key::kLayers, pattern);
  if (stop_after) add(key::kStopAfter, std::to_string(*stop_after));
  if (snapshots) add(key::kSnapshots, "1");
  add(key::kList, list.string());
  return text;
}

}  // namespace dds::attach
