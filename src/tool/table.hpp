// Text tables for a terminal, and how numbers stand in them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dds::tool {

class Table {
 public:
  /// Titles of the columns; one that begins with '<' is of text and set to the left, without that sign.
  explicit Table(std::vector<std::string> titles);
  /// As many cells as there are columns.
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

/// A title with a line under it.
std::string heading(const std::string& title);

}  // namespace dds::tool
