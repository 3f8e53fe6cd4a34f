// A run directory read back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <dds/log.hpp>
#include <dds/schema.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace dds::log {

/// The names of the files, in one place.
inline constexpr std::string_view kSignaturesCsv = "signatures.csv";
inline constexpr std::string_view kSignaturesJsonl = "signatures.jsonl";
inline constexpr std::string_view kLlcCsv = "llc.csv";
inline constexpr std::string_view kMetricsCsv = "metrics.csv";
inline constexpr std::string_view kRunJson = "run.json";

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

/// The same for signatures.jsonl.
Rows<Signature> read_jsonl(const std::filesystem::path& path, std::int64_t version = schema::kVersion);

/// run.json. Throws IoError where there is none, or one of a later schema than this library's.
nlohmann::ordered_json read_description(const std::filesystem::path& directory);

/// The version of the schema that it names.
std::int64_t version_of(const nlohmann::ordered_json& description);

/// All that a run directory holds, the spectra of signatures.jsonl put into the signatures.
struct Run {
  std::filesystem::path directory;
  std::string name;  ///< the directory's own; of several runs, with as much of its path as tells them apart
  nlohmann::ordered_json description;
  std::vector<Signature> signatures;
  std::vector<LlcEstimate> estimates;
  std::vector<Metric> metrics;
};

/// Throws IoError as above. The run may still be written to.
Run read_run(const std::filesystem::path& directory);

/// Several, each under a name of its own. Throws InvalidArgument if there is none, or two are the same directory.
std::vector<Run> read_runs(const std::vector<std::filesystem::path>& directories);

}  // namespace dds::log
