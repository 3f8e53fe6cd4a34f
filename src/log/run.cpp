#include "src/log/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <set>

#include "src/log/csv.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"

namespace dds::log {
namespace {

std::string content_of(const std::filesystem::path& path) { return is_there(path) ? read_file(path) : std::string(); }

[[noreturn]] void malformed(const std::filesystem::path& path, std::size_t line, std::string_view what) {
  throw IoError(fmt::format("{}:{}: {}", path.string(), line, what));
}

/// What the columns of a file are, by its header; null for one that later versions dropped. This version's header must
/// be as it is written, those of earlier ones are taken by name.
template <class Row>
Columns<Row> columns_of_header(const std::filesystem::path& path, const csv::Record& header, std::int64_t version) {
  const auto known = schema::columns_of<Row>();
  Columns<Row> columns;
  for (const std::string& name : header.fields) {
    const auto column = std::find_if(known.begin(), known.end(), [&](const auto& one) { return one.name == name; });
    columns.push_back(column == known.end() ? nullptr : &*column);
    const bool twice = column != known.end() && std::count(columns.begin(), columns.end(), &*column) > 1;
    const auto& retired = schema::retired_columns;
    const bool unknown = column == known.end() && std::find(retired.begin(), retired.end(), name) == retired.end();
    if (twice || unknown)
      malformed(path, header.line, fmt::format("column '{}' is {}", name, twice ? "there twice" : "not known"));
  }
  if (version == schema::kVersion && columns != all_columns<Row>())
    malformed(path, header.line, fmt::format("its columns are not those of schema version {}", version));
  return columns;
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
Rows<Row> read_csv(const std::filesystem::path& path, std::int64_t version) {
  const std::string content = content_of(path);
  csv::Reader reader(content);
  csv::Record record;
  const auto next = [&] {
    try {
      return reader.next(record);
    } catch (const InvalidArgument& error) {
      throw IoError(fmt::format("{}: {}", path.string(), error.what()));
    }
  };
  if (!next()) {
    // Without a whole line it can only be a header cut short.
    if (version == schema::kVersion && !csv_header<Row>().starts_with(content)) malformed(path, 1, "no file of a run");
    return {};
  }
  const Columns<Row> columns = columns_of_header<Row>(path, record, version);
  Rows<Row> rows{{}, reader.position()};
  for (; next(); rows.whole = reader.position()) {
    try {
      rows.rows.push_back(row_of<Row>(record.fields, columns));
    } catch (const InvalidArgument& error) {
      malformed(path, record.line, error.what());
    }
  }
  return rows;
}

Rows<Signature> read_jsonl(const std::filesystem::path& path, std::int64_t version) {
  const std::string content = content_of(path);
  Rows<Signature> rows;
  for (std::size_t end; (end = content.find('\n', rows.whole)) != std::string::npos; rows.whole = end + 1) {
    try {
      rows.rows.push_back(signature_of_json(std::string_view(content).substr(rows.whole, end - rows.whole),
                                            /*whole=*/version == schema::kVersion));
    } catch (const InvalidArgument& error) {
      malformed(path, rows.rows.size() + 1, error.what());
    }
  }
  return rows;
}

nlohmann::ordered_json read_description(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kRunJson;
  if (!is_there(path)) throw IoError(fmt::format("{} holds no run: {} is missing", directory.string(), kRunJson));
  nlohmann::ordered_json description;
  try {
    description = parse_json(read_file(path));
  } catch (const InvalidArgument& error) {
    throw IoError(fmt::format("{}: {}", path.string(), error.what()));
  }
  if (!description.is_object()) throw IoError(fmt::format("{}: not a JSON object", path.string()));
  const auto version = description.find("schema_version");
  if (version == description.end() || !version->is_number_integer() || *version < 1 || *version > schema::kVersion) {
    throw IoError(fmt::format("{}: schema_version is {}, this library reads 1 to {}", path.string(),
                              version == description.end() ? "missing" : version->dump(), schema::kVersion));
  }
  return description;
}

std::int64_t version_of(const nlohmann::ordered_json& description) {
  return description.at("schema_version").get<std::int64_t>();
}

Run read_run(const std::filesystem::path& directory) {
  Run run;
  run.directory = directory;
  run.description = read_description(directory);  // throws if there is no such directory
  run.name = last_components(directory, 1);
  // The CSV file first: of a run that is being written the JSON lines are then never behind.
  const std::int64_t version = version_of(run.description);
  run.signatures = read_csv<Signature>(directory / kSignaturesCsv, version).rows;
  take_spectra(run.signatures, read_jsonl(directory / kSignaturesJsonl, version).rows, directory / kSignaturesJsonl);
  run.estimates = read_csv<LlcEstimate>(directory / kLlcCsv, version).rows;
  run.metrics = read_csv<Metric>(directory / kMetricsCsv, version).rows;
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

template Rows<Signature> read_csv(const std::filesystem::path&, std::int64_t);
template Rows<LlcEstimate> read_csv(const std::filesystem::path&, std::int64_t);
template Rows<Metric> read_csv(const std::filesystem::path&, std::int64_t);

}  // namespace dds::log
