#include "src/log/record.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <dds/error.hpp>
#include <limits>

#include "src/base/check.hpp"
#include "src/log/csv.hpp"

namespace dds::log {
namespace {

using nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::string_view kConverged = "converged";
constexpr std::string_view kFailureSeparator = "; ";

// How each type of member is written.

json cell_of(bool value) { return value; }
json cell_of(std::int64_t value) { return value; }
json cell_of(std::uint64_t value) { return value; }
json cell_of(double value) { return std::isfinite(value) ? json(value) : json(); }
json cell_of(const std::string& value) { return value.empty() ? json() : json(value); }
template <class Enumeration>
json cell_of(Enumeration value) {
  return std::string(to_string(value));
}
json cell_of(c10::ScalarType value) { return c10::toString(value); }
json cell_of(const std::vector<std::string>& failures) {
  return failures.empty() ? std::string(kConverged) : fmt::format("{}", fmt::join(failures, kFailureSeparator));
}
json cell_of(const std::vector<Cause>& causes) { return cell_of(to_string(causes)); }
template <class T>
json cell_of(const std::optional<T>& value) {
  return value ? cell_of(*value) : json();
}

// And how it is read back.

[[noreturn]] void refuse(std::string_view text, std::string_view expected) {
  throw InvalidArgument(fmt::format("'{}' where {} was expected", text, expected));
}

template <class Number>
Number number_of(std::string_view text, std::string_view expected) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) refuse(text, expected);
  return value;
}

void parse(std::string_view text, std::int64_t& value) { value = number_of<std::int64_t>(text, "a whole number"); }
void parse(std::string_view text, std::uint64_t& value) { value = number_of<std::uint64_t>(text, "a whole number"); }
void parse(std::string_view text, double& value) {
  value = text.empty() ? kNan : number_of<double>(text, "a number");
  if (!text.empty() && !std::isfinite(value)) refuse(text, "a finite number");
}
void parse(std::string_view text, bool& value) {
  if (text != "true" && text != "false") refuse(text, "true or false");
  value = text == "true";
}
void parse(std::string_view text, std::string& value) { value = text; }
void parse(std::string_view text, Side& value) { value = side_from_string(text); }
void parse(std::string_view text, Source& value) { value = source_from_string(text); }
void parse(std::string_view text, FisherKind& value) { value = fisher_kind_from_string(text); }
void parse(std::string_view text, RowMode& value) { value = row_mode_from_string(text); }
void parse(std::string_view text, c10::ScalarType& value) { value = dtype_from_string(text); }
void parse(std::string_view text, StatusSet& value) { value = status_from_string(text); }
void parse(std::string_view text, LlcKind& value) { value = llc_kind_from_string(text); }

/// The pieces of `text` between separators; one empty piece for an empty text.
std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> pieces;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find(separator, begin);
    pieces.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return pieces;
    begin = end + separator.size();
  }
}

void parse(std::string_view text, std::vector<std::string>& failures) {
  failures = text == kConverged ? std::vector<std::string>{} : split(text, kFailureSeparator);
}

void parse(std::string_view text, std::vector<Cause>& causes) { causes = causes_from_string(text); }

template <class T>
void parse(std::string_view text, std::optional<T>& value) {
  value.reset();
  if (!text.empty()) parse(text, value.emplace());
}

/// Puts the text of a field back into the row.
template <class Row>
void assign(Row& row, const schema::Column<Row>& column, std::string_view text) {
  try {
    std::visit([&](auto member) { parse(text, member.in(row)); }, column.field);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("column {}: {}", column.name, error.what()));
  }
}

}  // namespace

template <class Row>
json cell(const Row& row, const schema::Column<Row>& column) {
  return std::visit([&](auto member) { return cell_of(member.of(row)); }, column.field);
}

std::string field_text(const json& cell) {
  if (cell.is_null()) return "";
  if (cell.is_string()) return cell.get<std::string>();
  if (cell.is_number_float()) return fmt::format("{}", cell.get<double>());
  return cell.dump();
}

template <class Row>
std::string csv_header() {
  std::vector<std::string> names;
  for (const auto& column : schema::columns_of<Row>()) names.emplace_back(column.name);
  return csv::line(names);
}

template <class Row>
std::string csv_line(const Row& row) {
  std::vector<std::string> fields;
  for (const auto& column : schema::columns_of<Row>()) fields.push_back(field_text(cell(row, column)));
  return csv::line(fields);
}

template <class Row>
Columns<Row> all_columns() {
  Columns<Row> columns;
  for (const auto& column : schema::columns_of<Row>()) columns.push_back(&column);
  return columns;
}

template <class Row>
Row row_of(const std::vector<std::string>& fields, const Columns<Row>& columns) {
  check(fields.size() == columns.size(), "a row", "the number of fields", fields.size(), "{}", columns.size());
  Row row;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (columns[i]) assign(row, *columns[i], fields[i]);
  }
  return row;
}

template json cell(const Signature&, const schema::Column<Signature>&);
template json cell(const LlcEstimate&, const schema::Column<LlcEstimate>&);
template json cell(const Metric&, const schema::Column<Metric>&);
template std::string csv_header<Signature>();
template std::string csv_header<LlcEstimate>();
template std::string csv_header<Metric>();
template std::string csv_line(const Signature&);
template std::string csv_line(const LlcEstimate&);
template std::string csv_line(const Metric&);
template Columns<Signature> all_columns();
template Columns<LlcEstimate> all_columns();
template Columns<Metric> all_columns();
template Signature row_of(const std::vector<std::string>&, const Columns<Signature>&);
template LlcEstimate row_of(const std::vector<std::string>&, const Columns<LlcEstimate>&);
template Metric row_of(const std::vector<std::string>&, const Columns<Metric>&);

}  // namespace dds::log
