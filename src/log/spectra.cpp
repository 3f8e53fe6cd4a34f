#include "src/log/spectra.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <dds/schema.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/base/check.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"
#include "src/log/run_files.hpp"

namespace dds::log {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::string_view kSpectrum = "spectrum";
constexpr std::array<std::string_view, 5> kKey = {"step", "layer", "side", "source", "fisher_kind"};

ordered_json key_of(const Signature& signature) {
  ordered_json key;
  for (const auto& column : schema::signature_columns) {
    if (std::find(kKey.begin(), kKey.end(), column.name) != kKey.end())
      key[std::string(column.name)] = cell(signature, column);
  }
  return key;
}

ordered_json key_of(const json& line) {
  ordered_json key;
  for (const std::string_view name : kKey) {
    const auto found = line.find(std::string(name));
    if (found == line.end()) throw_invalid("a spectrum", fmt::format("column {}", name), "missing", "one");
    key[std::string(name)] = *found;
  }
  return key;
}

std::vector<double> numbers_of(const json& list) {
  const bool numbers = list.is_array() && std::all_of(list.begin(), list.end(),
                                                      [](const json& v) { return v.is_number() || v.is_null(); });
  if (!numbers) throw_invalid("a spectrum", kSpectrum, json_text(list).substr(0, 40), "a list of numbers");
  std::vector<double> values;
  values.reserve(list.size());
  for (const json& v : list) values.push_back(v.is_null() ? std::numeric_limits<double>::quiet_NaN() : v.get<double>());
  return values;
}

}  // namespace

std::string spectrum_line(const Signature& signature) {
  if (!signature.has_numbers() || signature.spectrum.empty()) return "";
  ordered_json line = key_of(signature);
  line[std::string(kSpectrum)] = signature.spectrum;
  return json_text(line) + "\n";
}

std::size_t take_spectra(const std::filesystem::path& path, std::vector<Signature>& signatures) {
  const std::string content = content_of(path);
  std::size_t whole = 0, number = 0;
  auto row = signatures.begin();
  for (std::size_t begin = 0, end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    try {
      const auto line = parse_json<json>(std::string_view(content).substr(begin, end - begin));
      if (!line.is_object()) throw_invalid("a spectrum", "the line", "no JSON object", "one");
      const std::string key = json_text(key_of(line));
      if (const auto spectrum = line.find(std::string(kSpectrum)); spectrum != line.end()) {
        std::vector<double> values = numbers_of(*spectrum);
        row = std::find_if(row, signatures.end(),
                           [&](const Signature& s) { return s.has_numbers() && json_text(key_of(s)) == key; });
        if (row == signatures.end()) continue;
        (row++)->spectrum = std::move(values);
      }
      whole = end + 1;
    } catch (const InvalidArgument& error) {
      malformed(path, number, error.what());
    }
  }
  return whole;
}

}  // namespace dds::log
