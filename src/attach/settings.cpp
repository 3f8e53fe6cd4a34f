#include "src/attach/settings.hpp"

#include <fmt/format.h>

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
  } else if (key == key::kQuiet) {
    check(value == "0" || value == "1", kVariable, key, value, "0 or 1");
    settings.quiet = value == "1";
  } else if (key == key::kProcess) {
    settings.process = number(key, value, 0);
  } else if (key == key::kList) {
    settings.list = value;
  } else if (key == key::kTorch) {
    settings.torch = value;
  } else if (key == key::kVersion) {
    settings.version = value;
  } else if (key == key::kPlugin) {
    settings.plugin = value;
  } else {
    throw_invalid(kVariable, "key", value_text(key),
                  fmt::format("{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {} or {}", key::kOut, key::kEvery, key::kLayers,
                              key::kMaxRows, key::kStopAfter, key::kSnapshots, key::kQuiet, key::kProcess, key::kList,
                              key::kTorch, key::kVersion, key::kPlugin));
  }
}

}  // namespace

Settings Settings::parse(const std::string& text) {
  Settings settings;
  std::string item;  // without its escapes
  const auto take = [&] {
    if (item.empty()) return;
    const std::size_t equals = item.find('=');
    check(equals != std::string::npos && equals + 1 < item.size(), kVariable, "entry", item, "KEY=VALUE");
    assign(settings, std::string_view(item).substr(0, equals), std::string_view(item).substr(equals + 1));
    item.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kSeparator) {
      take();
    } else {
      const bool escaped = text[i] == kEscape && i + 1 < text.size();
      item += text[escaped ? ++i : i];
    }
  }
  take();
  return settings;
}

std::string Settings::text() const {
  std::string text;
  const auto add = [&](const char* key, const std::string& value) {
    if (value.empty()) return;
    if (!text.empty()) text += kSeparator;
    text += fmt::format("{}=", key);
    for (const char c : value) {
      if (c == kSeparator || c == kEscape) text += kEscape;
      text += c;
    }
  };
  add(key::kPlugin, plugin.string());
  add(key::kVersion, version);
  add(key::kTorch, torch.string());
  add(key::kOut, out.string());
  add(key::kEvery, std::to_string(every));
  add(key::kMaxRows, std::to_string(max_rows));
  for (const std::string& pattern : layers) add(key::kLayers, pattern);
  if (stop_after) add(key::kStopAfter, std::to_string(*stop_after));
  if (snapshots) add(key::kSnapshots, "1");
  if (quiet) add(key::kQuiet, "1");
  if (process > 0) add(key::kProcess, std::to_string(process));
  add(key::kList, list.string());
  return text;
}

}  // namespace dds::attach
