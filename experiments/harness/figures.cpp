#include "experiments/harness/figures.hpp"

#include <cmath>
#include <string_view>

#include "src/log/csv.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/page/page.hpp"

namespace dds::experiments {
namespace asset {

std::string_view script();  // figures.js

}  // namespace asset

namespace {

using nlohmann::json;

constexpr const char* kBody =
    "<header><h1></h1></header>\n<nav id=\"toolbar\" aria-label=\"what is shown\"></nav>\n<main></main>\n";

/// As the script takes it: a number, or a name.
json color_of(int color) {
  if (color == kGrey) return "grey";
  if (color == kInk) return "ink";
  return color;
}

std::string csv_cell(const json& cell) {
  if (cell.is_null()) return "";
  return cell.is_string() ? cell.get<std::string>() : cell.dump();
}

}  // namespace

void write_csv(const std::filesystem::path& path, const Table& table) {
  std::string text = log::csv::line(table.columns);
  for (const auto& row : table.rows) {
    std::vector<std::string> fields;
    fields.reserve(row.size());
    for (const json& cell : row) fields.push_back(csv_cell(cell));
    text += log::csv::line(fields);
  }
  log::replace_file(path, text);
}

void Page::add(const Figure& figure) {
  json panels = json::array();
  for (const Panel& panel : figure.panels) {
    json curves = json::array();
    for (const Curve& curve : panel.curves) {
      curves.push_back({{"name", curve.name},
                        {"x", curve.x},
                        {"y", curve.y},
                        {"color", color_of(curve.color)},
                        {"line", curve.line},
                        {"markers", curve.markers},
                        {"dashed", curve.dashed}});
    }
    panels.push_back({{"title", panel.title}, {"curves", curves}});
  }
  parts_.push_back({{"title", figure.title},
                    {"caption", figure.caption},
                    {"x_title", figure.x_title},
                    {"y_title", figure.y_title},
                    {"log_x", figure.log_x},
                    {"log_y", figure.log_y},
                    {"panels", panels}});
}

void Page::add(const std::string& title, const std::string& caption, const Table& table) {
  parts_.push_back({{"title", title}, {"caption", caption}, {"columns", table.columns}, {"rows", table.rows}});
}

void Page::write(const std::filesystem::path& path) const {
  const json data{{"title", title_}, {"parts", parts_}};
  log::replace_file(path, page::html(kBody, log::json_text(data), asset::script()));
}

std::vector<double> log_spaced(double first, double last, std::size_t n) {
  std::vector<double> values;
  for (std::size_t i = 0; i < n; ++i) {
    values.push_back(first * std::pow(last / first, static_cast<double>(i) / static_cast<double>(n - 1)));
  }
  return values;
}

}  // namespace dds::experiments
