// Comma-separated values as RFC 4180 has them, with "\n" between records.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dds::log::csv {

/// One record with its line end; fields that hold a comma, a quote or a line break are quoted.
std::string line(const std::vector<std::string>& fields);

struct Record {
  std::vector<std::string> fields;
  std::size_t line = 0;  ///< where it begins, counted from 1
};

struct Table {
  std::vector<Record> records;
  std::size_t whole = 0;  ///< bytes up to the end of the last whole record; what follows was torn off by a crash
};

/// The records of a text; a last one without its line end is left out. Line ends may be "\r\n".
/// Throws InvalidArgument, naming the line, for a quote where none may stand.
Table parse(std::string_view text);

}  // namespace dds::log::csv
