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

/// More fields no record may have: an empty one takes a byte of a file, and many of memory.
inline constexpr std::size_t kMostFields = 1000;

/// Walks over a text record by record. Line ends may be "\r\n".
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  /// False at the end of the text, or where what is left is no whole record. Throws InvalidArgument, naming the line,
  /// for a quote where none may stand, and for too many fields.
  bool next(Record& record);
  /// Where the record ends that `next` gave last.
  std::size_t position() const { return at_; }

 private:
  bool read_field(std::string& field);
  bool read_quoted(std::string& field);
  bool at_line_end() const;

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

struct Table {
  std::vector<Record> records;
  std::size_t whole = 0;  ///< bytes up to the end of the last whole record; what follows was torn off by a crash
};

/// All records at once.
Table parse(std::string_view text);

}  // namespace dds::log::csv
