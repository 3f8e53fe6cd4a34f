// A row of the log as CSV fields, and its cells as JSON, from the one table of columns in <dds/schema.hpp>.
#pragma once

#include <dds/schema.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace dds::log {

/// The value of a column: null where it is missing or not finite.
template <class Row>
nlohmann::json cell(const Row& row, const schema::Column<Row>& column);

/// A scalar JSON value as the text of a CSV field; null is empty.
std::string field_text(const nlohmann::json& cell);

/// The header of a CSV file, and one row of it, each with its line end.
template <class Row>
std::string csv_header();
template <class Row>
std::string csv_line(const Row& row);

/// Columns of a file; a null one is passed over.
template <class Row>
using Columns = std::vector<const schema::Column<Row>*>;
/// Those of the present schema.
template <class Row>
Columns<Row> all_columns();

/// The row of a CSV record; an empty field in a column of plain numbers becomes NaN, and what has no column stays as a
/// new row has it. Throws InvalidArgument naming the column and the text.
template <class Row>
Row row_of(const std::vector<std::string>& fields, const Columns<Row>& columns = all_columns<Row>());

}  // namespace dds::log
