// The files of a run directory: their names, and how each is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <dds/run.hpp>
#include <dds/schema.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace dds::log {

/// The names of the files, in one place.
inline constexpr std::string_view kSignaturesCsv = "signatures.csv";
inline constexpr std::string_view kSpectraJsonl = "spectra.jsonl";
inline constexpr std::string_view kSignaturesJsonl = "signatures.jsonl";  ///< the spectra, up to schema version 2
inline constexpr std::string_view kLlcCsv = "llc.csv";
inline constexpr std::string_view kMetricsCsv = "metrics.csv";
inline constexpr std::string_view kRunJson = "run.json";

/// In run.json: what a Monitor says of itself, the entry there that tells its model's parameters from another's, and
/// all those of the run.
inline constexpr std::string_view kMonitor = "monitor";
inline constexpr std::string_view kParameters = "parameters";
inline constexpr std::string_view kModels = "models";

/// The rows of one file, and how many of its bytes they take: what a crash tore off behind them does not count.
template <class Row>
struct Rows {
  std::vector<Row> rows;
  std::size_t whole = 0;  ///< 0: the file is missing, empty, or its header is torn
};

/// Reads a CSV file of the log; a missing one has no rows. Throws IoError naming the file and the line for anything but
/// the header and rows of that version of the schema.
template <class Row>
Rows<Row> read_csv(const std::filesystem::path& path, std::int64_t version = schema::kVersion);

/// run.json. Throws IoError where there is none, or one of a later schema than this library's.
nlohmann::ordered_json read_description(const std::filesystem::path& directory);

/// The version of the schema that it names.
std::int64_t version_of(const nlohmann::ordered_json& description);

/// The text of a file; empty if it is missing.
std::string content_of(const std::filesystem::path& path);

[[noreturn]] void malformed(const std::filesystem::path& path, std::size_t line, std::string_view what);

}  // namespace dds::log
