#include "src/tool/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace dds::tool {
namespace {

bool begins_character(char c) { return (c & 0xC0) != 0x80; }

/// Characters of UTF-8 text.
std::size_t length(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

/// Where the character of this number begins; the text's size for one behind the last.
std::size_t byte_of(const std::string& text, std::size_t character) {
  std::size_t byte = 0;
  for (std::size_t met = 0; byte < text.size(); ++byte) {
    if (begins_character(text[byte]) && met++ == character) break;
  }
  return byte;
}

constexpr std::size_t kGap = 2;  // between columns
constexpr const char* kEllipsis = "\u2026";

/// Replaces the parts that all names begin and end with, up to a dot, by an ellipsis.
void cut_what_is_common(std::vector<std::string*> names) {
  const auto [least, most] = std::minmax_element(names.begin(), names.end(), [](auto* a, auto* b) { return *a < *b; });
  if (names.empty() || **least == **most) return;
  const auto common = [&](auto&& begin) {
    std::size_t length = std::string::npos;
    for (const std::string* name : names) {
      const auto first = begin(*names.front()), other = begin(*name);
      std::size_t same = 0, upto = 0;
      for (; same < std::min(names.front()->size(), name->size()) && first[same] == other[same]; ++same) {
        if (first[same] == '.') upto = same + 1;
      }
      length = std::min(length, upto);
    }
    return length;
  };
  const std::size_t head = common([](const std::string& name) { return name.begin(); });
  const std::size_t tail = common([](const std::string& name) { return name.rbegin(); });
  for (std::string* name : names) {
    if (head + tail >= name->size()) return;
  }
  for (std::string* name : names) {
    *name = (head ? kEllipsis : "") + name->substr(head, name->size() - head - tail) + (tail ? kEllipsis : "");
  }
}

}  // namespace

std::string cut_in_middle(const std::string& text, std::size_t width) {
  const std::size_t characters = length(text);
  if (characters <= width) return text;
  if (width == 0) return "";
  const std::size_t head = width / 2, tail = width - 1 - head;
  return text.substr(0, byte_of(text, head)) + kEllipsis + text.substr(byte_of(text, characters - tail));
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

std::vector<std::size_t> Table::widths() const {
  std::vector<std::size_t> widths(left_.size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], length(row[i]));
  }
  return widths;
}

void Table::fit(std::size_t width, const std::vector<std::string>& spare) {
  const auto excess = [&] {
    const std::vector<std::size_t> all = widths();
    const std::size_t now = std::accumulate(all.begin(), all.end(), kGap * (all.size() - 1));
    return now > width ? now - width : 0;
  };
  if (excess() > 0) {
    std::vector<std::string*> names;
    for (std::size_t row = 1; row < rows_.size(); ++row) names.push_back(&rows_[row].front());
    cut_what_is_common(std::move(names));
  }
  for (const std::string& title : spare) {
    if (excess() == 0) return;
    const auto at = std::find(rows_.front().begin(), rows_.front().end(), title) - rows_.front().begin();
    for (auto& row : rows_) row.erase(row.begin() + at);
    left_.erase(left_.begin() + at);
  }
  constexpr std::size_t kLeast = 8;
  const std::size_t first = widths().front(), cut = std::min(excess(), first - std::min(first, kLeast));
  for (auto& row : rows_) row.front() = cut_in_middle(row.front(), first - cut);
}

std::string Table::text() const {
  const std::vector<std::size_t> all = widths();
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string pad(all[i] - length(row[i]), ' ');
      line += std::string(i > 0 ? kGap : 0, ' ') + (left_[i] ? row[i] + pad : pad + row[i]);
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
