#include "src/log/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/schema.hpp>
#include <set>

#include "src/log/csv.hpp"
#include "src/log/file.hpp"
#include "src/log/record.hpp"

namespace dds::log {
namespace {

std::string content_of(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_file(path) : std::string();
}

[[noreturn]] void malformed(const std::filesystem::path& path, std::size_t line, std::string_view what) {
  throw IoError(fmt::format("{}:{}: {}", path.string(), line, what));
}

/// Refuses a header that is not this schema's.
template <class Row>
void check_header(const std::filesystem::path& path, const csv::Record& header) {
  const auto columns = schema::columns_of<Row>();
  const bool same = std::equal(columns.begin(), columns.end(), header.fields.begin(), header.fields.end(),
                               [](const auto& column, const std::string& name) { return column.name == name; });
  if (!same)
    malformed(path, header.line, fmt::format("its columns are not those of schema version {}", schema::kVersion));
}

/// The end of a directory's path, so many names of it.
std::string last_components(const std::filesystem::path& directory, int count) {
  std::filesystem::path left = std::filesystem::canonical(directory), end;
  for (int i = 0; i < count && left.has_relative_path(); ++i) {
    end = end.empty() ? left.filename() : left.filename() / end;
    left = left.parent_path();
  }
  return end.string();
}

/// Puts the spectra that the JSON lines hold into the same rows of the CSV file.
void take_spectra(std::vector<Signature>& signatures, std::vector<Signature> lines, const std::filesystem::path& path) {
  for (std::size_t i = 0; i < std::min(signatures.size(), lines.size()); ++i) {
    if (signatures[i].step != lines[i].step || signatures[i].side != lines[i].side) {
      malformed(path, i + 1, fmt::format("not the row that {} holds in this place", kSignaturesCsv));
    }
    signatures[i].spectrum = std::move(lines[i].spectrum);
  }
}

}  // namespace

template <class Row>
Rows<Row> read_csv(const std::filesystem::path& path) {
  const std::string content = content_of(path);
  csv::Table table;
  try {
    table = csv::parse(content);
  } catch (const InvalidArgument& error) {
    throw IoError(fmt::format("{}: {}", path.string(), error.what()));
  }
  // Without a whole line it can only be a header cut short.
  if (table.records.empty() && !csv_header<Row>().starts_with(content)) malformed(path, 1, "no file of a run");
  Rows<Row> rows{{}, table.whole};
  for (const csv::Record& record : table.records) {
    if (&record == &table.records.front()) {
      check_header<Row>(path, record);
      continue;
    }
    try {
      rows.rows.push_back(row_of<Row>(record.fields));
    } catch (const InvalidArgument& error) {
      malformed(path, record.line, error.what());
    }
  }
  return rows;
}

Rows<Signature> read_jsonl(const std::filesystem::path& path) {
  const std::string content = content_of(path);
  Rows<Signature> rows;
  for (std::size_t end; (end = content.find('\n', rows.whole)) != std::string::npos; rows.whole = end + 1) {
    try {
      rows.rows.push_back(signature_of_json(std::string_view(content).substr(rows.whole, end - rows.whole)));
    } catch (const InvalidArgument& error) {
      malformed(path, rows.rows.size() + 1, error.what());
    }
  }
  return rows;
}

nlohmann::ordered_json read_description(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kRunJson;
  if (!std::filesystem::exists(path))
    throw IoError(fmt::format("{} holds no run: {} is missing", directory.string(), kRunJson));
  auto description = nlohmann::ordered_json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!description.is_object()) throw IoError(fmt::format("{}: not a JSON object", path.string()));
  const auto version = description.find("schema_version");
  if (version == description.end() || *version != schema::kVersion) {
    throw IoError(fmt::format("{}: schema_version is {}, this library has {}", path.string(),
                              version == description.end() ? "missing" : version->dump(), schema::kVersion));
  }
  return description;
}

Run read_run(const std::filesystem::path& directory) {
  Run run;
  run.directory = directory;
  run.description = read_description(directory);  // throws if there is no such directory
  run.name = last_components(directory, 1);
  // The CSV file first: of a run that is being written the JSON lines are then never behind.
  run.signatures = read_csv<Signature>(directory / kSignaturesCsv).rows;
  take_spectra(run.signatures, read_jsonl(directory / kSignaturesJsonl).rows, directory / kSignaturesJsonl);
  run.estimates = read_csv<LlcEstimate>(directory / kLlcCsv).rows;
  run.metrics = read_csv<Metric>(directory / kMetricsCsv).rows;
  return run;
}

std::vector<Run> read_runs(const std::vector<std::filesystem::path>& directories) {
  if (directories.empty()) throw InvalidArgument("no run directory was given, expected at least one");
  std::vector<Run> runs;
  std::set<std::filesystem::path> seen;
  for (const std::filesystem::path& directory : directories) {
    runs.push_back(read_run(directory));
    if (!seen.insert(std::filesystem::canonical(directory)).second)
      throw InvalidArgument(fmt::format("{} was given twice, expected different runs", directory.string()));
  }
  for (int components = 2;; ++components) {
    std::set<std::string> names;
    for (const Run& run : runs) names.insert(run.name);
    if (names.size() == runs.size()) return runs;
    for (Run& run : runs) run.name = last_components(run.directory, components);
  }
}

template Rows<Signature> read_csv(const std::filesystem::path&);
template Rows<LlcEstimate> read_csv(const std::filesystem::path&);
template Rows<Metric> read_csv(const std::filesystem::path&);

}  // namespace dds::log
