// Text tables for a terminal, and how numbers stand in them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <dds/signature.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tool/text.hpp"

namespace dds::tool {

/// At most `width` characters of a text: its beginning and its end where it is longer, with an ellipsis between them.
std::string cut_in_middle(const std::string& text, std::size_t width);

class Table {
 public:
  /// Titles of the columns; one that begins with '<' is of text and set to the left, without that sign.
  explicit Table(std::vector<std::string> titles);
  /// As many cells as there are columns; they are made printable.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows() == 0; }
  std::size_t rows() const { return rows_.size() - 1; }
  /// Makes the text `width` characters wide at most, as far as that goes. The first column is of names. What all names
  /// begin and end with goes first, then the columns of these titles, one after the other, then the names' middles.
  void fit(std::size_t width, const std::vector<std::string>& spare);
  /// Keeps the first rows.
  void truncate(std::size_t rows) { rows_.resize(std::min(rows_.size(), rows + 1)); }
  /// Every row with its line end, columns two spaces apart.
  std::string text() const;

 private:
  std::vector<std::size_t> widths() const;

  std::vector<std::vector<std::string>> rows_;  // the first one: titles
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
