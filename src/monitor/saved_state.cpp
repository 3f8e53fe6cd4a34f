#include "src/monitor/saved_state.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/check.hpp"
#include "src/log/json.hpp"

namespace dds {
namespace {

constexpr const char* kFunction = "Monitor::load_state";

/// Steps are counted on from here.
constexpr std::int64_t kMost = std::int64_t{1} << 53;

std::int64_t whole_number(const nlohmann::json& value, std::int64_t least, const std::string& what) {
  // One beyond int64 comes out as a negative number.
  const std::int64_t number = value.is_number_integer() ? value.get<std::int64_t>() : least - 1;
  if (number < least || number > kMost)
    throw_invalid(kFunction, what, value.dump(), fmt::format("a whole number from {} to 2^53", least));
  return number;
}

}  // namespace

std::string text_of(const SavedState& state) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const auto& [series, rank] : state.fixed_ranks) {
    ranks.push_back({series.layer, to_string(series.side), to_string(series.source),
                     series.fisher_kind ? to_string(*series.fisher_kind) : "", rank});
  }
  return log::json_text(
      nlohmann::json{{"parameters", state.parameters}, {"steps", state.steps}, {"fixed_ranks", ranks}});
}

SavedState saved_state(const std::string& text) {
  try {
    const auto json = log::parse_json<nlohmann::json>(text);
    SavedState state;
    state.parameters = json.value("parameters", "");
    state.steps = whole_number(json.at("steps"), 0, "steps");
    for (const nlohmann::json& entry : json.at("fixed_ranks")) {
      SeriesId series{entry.at(0), side_from_string(entry.at(1).get<std::string>()),
                      source_from_string(entry.at(2).get<std::string>()), std::nullopt};
      if (const auto kind = entry.at(3).get<std::string>(); !kind.empty())
        series.fisher_kind = fisher_kind_from_string(kind);
      state.fixed_ranks[series] = whole_number(entry.at(4), 1, fmt::format("the fixed rank of {}", to_string(series)));
    }
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw_invalid(kFunction, "the text", fmt::format("another ({})", error.what()), "that of Monitor::state()");
  }
}

}  // namespace dds
