// Tables and figures of an experiment: CSV files, and one page that works offline.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dds::experiments {

/// Cells are numbers, strings, or null for what does not exist.
struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<nlohmann::json>> rows;
};

/// Writes the table as CSV, whole or not at all. Throws IoError if it cannot.
void write_csv(const std::filesystem::path& path, const Table& table);

/// Colours of a curve besides the numbered ones of the palette.
inline constexpr int kGrey = -1, kInk = -2;

/// One line or cloud of points.
struct Curve {
  std::string name;  ///< in the legend, once a figure; empty: not in it
  std::vector<double> x, y;
  int color = 0;  ///< number in the palette from 0 on, kGrey or kInk
  bool line = true, markers = true, dashed = false;
};

struct Panel {
  std::string title;
  std::vector<Curve> curves;
};

/// Panels in a grid with common titles of their axes. Titles of panels and axes may have markup.
struct Figure {
  std::string title;
  std::string caption;  ///< what is seen, and what of it is a prediction
  std::string x_title, y_title;
  bool log_x = false, log_y = false;
  std::vector<Panel> panels;
};

/// The page: figures and tables in the order in which they are added.
class Page {
 public:
  explicit Page(std::string title) : title_(std::move(title)) {}
  void add(const Figure& figure);
  void add(const std::string& title, const std::string& caption, const Table& table);
  /// Throws IoError if it cannot be written.
  void write(const std::filesystem::path& path) const;

 private:
  std::string title_;
  nlohmann::json parts_ = nlohmann::json::array();
};

/// n numbers from `first` to `last` in equal ratios.
std::vector<double> log_spaced(double first, double last, std::size_t n);

}  // namespace dds::experiments
