// Text tables for a terminal, and how numbers stand in them.
#pragma once

#include <cstdint>
#include <dds/signature.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dds::tool {

/// Text out of a file for the terminal, which control characters could command: each becomes '?'.
std::string printable(std::string_view text);

/// The line that says what is wrong: of a message of the TorchScript interpreter the last, of all others the first.
std::string one_line(std::string text);

class Table {
 public:
  /// Titles of the columns; one that begins with '<' is of text and set to the left, without that sign.
  explicit Table(std::vector<std::string> titles);
  /// As many cells as there are columns; they are made printable.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.size() == 1; }
  /// Every row with its line end, columns two spaces apart.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> left_;
};

/// Four significant digits; "-" for what does not exist or is not finite.
std::string show(double value);
std::string show(std::optional<double> value);
std::string show(std::optional<std::int64_t> value);

/// sigma_min, with '*' behind it where it is at the floor, else a space.
std::string sigma_min_text(const Signature& signature);

/// A title with a line under it.
std::string heading(const std::string& title);

}  // namespace dds::tool
