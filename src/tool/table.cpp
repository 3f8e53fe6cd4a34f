#include "src/tool/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dds::tool {
namespace {

/// Characters of UTF-8 text.
std::size_t length(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too, and two bytes of UTF-8.
    const bool two = c == 0xC2 && i + 1 < text.size() && (text[i + 1] & 0xE0) == 0x80;
    if (two) ++i;
    out += two || c < ' ' || c == 0x7F ? '?' : text[i];
  }
  return out;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::size_t last = text.rfind('\n') + 1;
  if (text.substr(last).starts_with("RuntimeError: ")) return text.substr(last);
  return text.substr(0, text.find('\n'));
}

Table::Table(std::vector<std::string> titles) {
  for (std::string& title : titles) {
    left_.push_back(title.starts_with('<'));
    if (left_.back()) title.erase(0, 1);
  }
  rows_.push_back(std::move(titles));
}

void Table::add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths(left_.size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], length(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - length(row[i]), ' ');
      line += (i > 0 ? "  " : "") + (left_[i] ? row[i] + pad : pad + row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string show(double value) { return std::isfinite(value) ? fmt::format("{:.4g}", value) : "-"; }

std::string show(std::optional<double> value) { return value ? show(*value) : "-"; }

std::string show(std::optional<std::int64_t> value) { return value ? std::to_string(*value) : "-"; }

std::string sigma_min_text(const Signature& signature) {
  return show(signature.sigma_min) + (signature.at_floor.value_or(false) ? "*" : " ");
}

std::string heading(const std::string& title) {
  return fmt::format("{}\n{}\n", title, std::string(length(title), '-'));
}

}  // namespace dds::tool
