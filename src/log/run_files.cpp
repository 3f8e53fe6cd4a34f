#include "src/log/run_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>

#include "src/log/csv.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"

namespace dds::log {
namespace {

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

}  // namespace

std::string content_of(const std::filesystem::path& path) { return is_there(path) ? read_file(path) : std::string(); }

void malformed(const std::filesystem::path& path, std::size_t line, std::string_view what) {
  throw IoError(fmt::format("{}:{}: {}", path.string(), line, what));
}

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

template Rows<Signature> read_csv(const std::filesystem::path&, std::int64_t);
template Rows<LlcEstimate> read_csv(const std::filesystem::path&, std::int64_t);
template Rows<Metric> read_csv(const std::filesystem::path&, std::int64_t);

}  // namespace dds::log
