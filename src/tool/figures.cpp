#include "src/tool/figures.hpp"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <dds/error.hpp>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "src/log/file.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Those of the report (src/page/theme.js).
constexpr std::array kColors = {"#0072b2", "#c04a00", "#00805d", "#a8467f", "#7a5c00", "#4b4b9b"};

/// Text as gnuplot takes it literally; between double quotes it would run what stands between backquotes.
std::string quoted(std::string text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return out + "'";
}

double log10_of(std::optional<double> value) { return value && *value > 0 ? std::log10(*value) : kNan; }

/// What is drawn of a signature; NaN where there is nothing.
struct Observable {
  const char* name;  ///< of the file
  const char* title;
  double (*value)(const Signature&);
  double (*floor)(const Signature&);  ///< null: none
  const char* range;                  ///< of the axis
  const char* palette;                ///< of the heat map; null: none is drawn
};

constexpr std::array kObservables = {
    Observable{"sigma_min", "log10 sigma_min",
               [](const Signature& s) { return log10_of(s.sigma_min == 0.0 ? s.floor : s.sigma_min); },
               [](const Signature& s) { return log10_of(s.floor); }, "[*:*]",
               "(0 '#440154', 1 '#3b528b', 2 '#21918c', 3 '#4fb85f', 4 '#b8a80c')"},
    Observable{"lambda_min_plus", "log10 lambda_min+",
               [](const Signature& s) { return s.log10_lambda_min_plus.value_or(kNan); }, nullptr, "[*:*]", nullptr},
    Observable{"dead_directions", "dead directions",
               [](const Signature& s) { return s.dead_directions ? static_cast<double>(*s.dead_directions) : kNan; },
               nullptr, "[0:1<*]", "(0 '#e9ecf1', 1 '#c04a00')"},
};

/// Axes below and at the left, in the colours of the report.
constexpr const char* kFrame =
    "set border 3 ls 100\nset tics nomirror out textcolor rgb '#1d2330'\nset xtics nomirror\nset ytics nomirror\n";

/// Readings of one layer and side of one run, in order of steps: checkpoint reads where the run has any, of one kind.
using Readings = std::map<std::int64_t, const Signature*>;

/// The place of a step on a logarithmic axis, on which 0 stands half a decade before 1.
double position(std::int64_t step) { return step > 0 ? std::log10(static_cast<double>(step)) : -0.5; }

class Script {
 public:
  Script(const std::vector<log::Run>& runs, fs::path directory, std::string format)
      : runs_(runs), directory_(std::move(directory)), format_(std::move(format)) {
    for (const log::Run& run : runs_) collect(run);
    text_ = fmt::format(
        "# dds report replaces this file: keep one that you change under another name.\n"
        "set encoding utf8\nset style line 100 lc rgb '#aab2c0'\n{}",
        kFrame);
    for (const Observable& observable : kObservables) {
      draw_layers(observable);
      if (observable.palette) draw_heat(observable);
    }
    draw_estimates();
  }
  const std::string& text() const { return text_; }
  const std::vector<fs::path>& pictures() const { return pictures_; }

 private:
  void collect(const log::Run& run) {
    std::map<SeriesId, Readings> series;
    for (const Signature& s : run.signatures) {
      if (seen_.insert(s.layer).second) layers_.push_back(s.layer);
      series[series_of(s)][s.step] = &s;
      steps_.insert(s.step);
    }
    auto& drawn = readings_.emplace_back();
    for (const Source source : {Source::Read, Source::Step}) {
      for (auto& [id, steps] : series) {
        if (id.source == source) drawn.try_emplace({id.layer, id.side}, std::move(steps));  // the first stays
      }
    }
    for (const LlcEstimate& e : run.estimates) steps_.insert(e.step);
  }

  /// Empty if the run has none.
  const Readings& readings(std::size_t run, const std::string& layer, Side side) const {
    static const Readings none;
    const auto found = readings_[run].find({layer, side});
    return found == readings_[run].end() ? none : found->second;
  }

  /// Begins a picture of so many panels.
  void begin(const std::string& name, std::size_t panels, const std::string& title, int width = 330, int height = 250) {
    const std::size_t columns = panels <= 5 ? panels : 4, rows = (panels + columns - 1) / columns;
    pictures_.push_back(directory_ / (name + "." + format_));
    text_ += fmt::format("set terminal {} noenhanced font 'DejaVu Sans,10' background '#ffffff' size {},{}\n",
                         format_ == "png" ? "pngcairo" : "svg", columns * static_cast<std::size_t>(width),
                         rows * static_cast<std::size_t>(height) + 30);
    text_ += fmt::format("set output {}\nset multiplot layout {},{} title {}\n", quoted(pictures_.back().string()),
                         rows, columns, quoted(title));
  }
  void end() { text_ += "unset multiplot\nset output\n"; }

  void step_axis() {
    std::string tics;
    if (steps_.contains(0)) tics = fmt::format("'0' {}", position(0));
    const std::int64_t last = *steps_.rbegin();
    for (std::int64_t step = 1; step <= last; step *= 10) {
      tics += fmt::format("{}'{}' {}", tics.empty() ? "" : ", ", step, position(step));
      if (step > last / 10) break;
    }
    text_ += fmt::format("set xtics ({})\nset xlabel 'training step'\nset xrange [{}:{}]\n", tics,
                         position(*steps_.begin()) - 0.1, position(*steps_.rbegin()) + 0.1);
  }

  /// A block of data, and its name.
  std::string data(const std::string& rows) {
    const std::string name = fmt::format("$data{}", blocks_++);
    text_ += fmt::format("{} << EOD\n{}EOD\n", name, rows);
    return name;
  }

  /// gnuplot refuses to draw what has no number at all.
  static bool has_numbers(const Readings& readings, double (*value)(const Signature&)) {
    return std::any_of(readings.begin(), readings.end(),
                       [&](const auto& one) { return std::isfinite(value(*one.second)); });
  }

  static std::string rows_of(const Readings& readings, double (*value)(const Signature&)) {
    std::string rows;
    for (const auto& [step, s] : readings) rows += fmt::format("{} {}\n", position(step), value(*s));
    return rows;
  }

  void draw_layers(const Observable& observable) {
    const std::size_t panels = std::min(kMostPanels, layers_.size());
    if (panels == 0) return;
    begin(observable.name, panels + 1,
          observable.floor ? fmt::format("{} (dotted: its floor)", observable.title) : observable.title);
    step_axis();
    text_ += fmt::format("set yrange {}\nset offsets 0, 0, graph 0.08, graph 0.08\nset key off\n", observable.range);
    std::map<std::string, std::string> looks;  // of every curve's name
    for (std::size_t panel = 0; panel < panels; ++panel) {
      std::string plots;
      for (std::size_t run = 0; run < runs_.size(); ++run) {
        for (const Side side : {Side::Activation, Side::Fisher, Side::Input}) {
          const Readings& shown = readings(run, layers_[panel], side);
          if (!has_numbers(shown, observable.value)) continue;
          const auto [name, look] = look_of(run, side);
          looks.emplace(name, look);
          add_curve(plots, observable, shown, look);
        }
      }
      text_ +=
          fmt::format("set title {}\nplot {}\n", quoted(layers_[panel]), plots.empty() ? "[][0:1] NaN notitle" : plots);
    }
    draw_key(looks);
    end();
  }

  /// The name of a curve, and how it is drawn. One run: a colour a side. Several: a colour a run, and the sides by
  /// their dashes.
  std::pair<std::string, std::string> look_of(std::size_t run, Side side) const {
    const bool several = runs_.size() > 1;
    const auto place = static_cast<std::size_t>(side == Side::Activation ? 0 : side == Side::Fisher ? 1 : 2);
    const std::string name(to_string(side));
    return {
        several ? fmt::format("{}, {}", runs_[run].name, name) : name,
        fmt::format("dt {} lc rgb '{}'", several ? 1 + place : 1, kColors[(several ? run : place) % kColors.size()])};
  }

  void add_curve(std::string& plots, const Observable& observable, const Readings& shown, const std::string& look) {
    plots += fmt::format("{}{} using 1:2 with linespoints lw 1.6 pt 7 ps 0.35 {} notitle", plots.empty() ? "" : ", ",
                         data(rows_of(shown, observable.value)), look);
    if (!observable.floor || !has_numbers(shown, observable.floor)) return;
    const std::string color = look.substr(look.find("lc "));
    plots +=
        fmt::format(", {} using 1:2 with lines lw 1 dt 3 {} notitle", data(rows_of(shown, observable.floor)), color);
  }

  /// The last panel: what the curves of the others are.
  void draw_key(const std::map<std::string, std::string>& looks) {
    std::string plots;
    for (const auto& [name, look] : looks)
      plots += fmt::format("{}NaN with lines lw 2 {} title {}", plots.empty() ? "" : ", ", look, quoted(name));
    text_ += fmt::format(
        "unset title\nunset border\nunset tics\nunset xlabel\nset key on center Left reverse\nset yrange [0:1]\n"
        "plot {}\n{}",
        plots, kFrame);
  }

  void draw_heat(const Observable& observable) {
    struct Panel {
      std::size_t run;
      Side side;
    };
    std::vector<Panel> panels;
    for (std::size_t run = 0; run < runs_.size(); ++run) {
      for (const Side side : {Side::Activation, Side::Fisher, Side::Input}) {
        const bool any = std::any_of(layers_.begin(), layers_.end(), [&](const std::string& layer) {
          return has_numbers(readings(run, layer, side), observable.value);
        });
        if (any) panels.push_back({run, side});
      }
    }
    if (panels.empty()) return;
    const int height = 140 + 16 * static_cast<int>(std::min<std::size_t>(layers_.size(), 40));
    begin(std::string("heat_") + observable.name, panels.size(), observable.title, 520, height);
    for (const Panel& panel : panels) draw_heat_panel(observable, panel.run, panel.side);
    text_ += "set ytics autofreq nomirror\n";
    end();
  }

  /// Cells in a regular grid, a step a column, whatever lies between the steps.
  void draw_heat_panel(const Observable& observable, std::size_t run, Side side) {
    std::set<std::int64_t> steps;
    for (const std::string& layer : layers_) {
      for (const auto& [step, s] : readings(run, layer, side)) steps.insert(step);
    }
    std::string cells, steps_at, layers_at;
    for (std::size_t y = 0; y < layers_.size(); ++y) {
      const Readings& row = readings(run, layers_[y], side);
      std::size_t x = 0;
      for (const std::int64_t step : steps) {
        const auto found = row.find(step);
        cells += fmt::format("{} {} {}\n", x++, y, found == row.end() ? kNan : observable.value(*found->second));
      }
      if (layers_.size() <= 40) layers_at += fmt::format("{}{} {}", y > 0 ? ", " : "", quoted(layers_[y]), y);
    }
    const std::size_t every = std::max<std::size_t>(1, (steps.size() + 5) / 6);
    std::size_t x = 0;
    for (const std::int64_t step : steps) {
      if (x++ % every == 0) steps_at += fmt::format("{}'{}' {}", steps_at.empty() ? "" : ", ", step, x - 1);
    }
    const std::string block = data(cells);
    text_ += fmt::format("set title {}\nset key off\nset xtics ({})\nset xlabel 'training step'\n",
                         quoted(fmt::format("{}, {}", runs_[run].name, to_string(side))), steps_at);
    text_ += layers_at.empty() ? "set ytics autofreq nomirror\n" : fmt::format("set ytics ({})\n", layers_at);
    text_ += fmt::format(
        "set offsets 0, 0, 0, 0\nset xrange [-0.5:{}.5]\nset yrange [{}.5:-0.5]\nset palette defined {}\nset cbrange "
        "{}\n"
        "plot {} using 1:2:3 with image notitle\n",
        steps.size() - 1, layers_.size() - 1, observable.palette, observable.range, block);
  }

  /// The estimates of one kind and run whose verdict is, or is not, `converged`.
  static std::string estimates(const log::Run& run, LlcKind kind, bool converged) {
    std::string rows;
    for (const LlcEstimate& e : run.estimates) {
      if (e.kind != kind || e.converged() != converged || !e.lambda) continue;
      rows += fmt::format("{} {} {}\n", position(e.step), *e.lambda, 1.96 * e.standard_error.value_or(0));
    }
    return rows;
  }

  void draw_estimates() {
    std::vector<std::pair<LlcKind, std::string>> panels;
    for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
      std::string plots;
      for (std::size_t run = 0; run < runs_.size(); ++run) {
        for (const bool converged : {true, false}) {
          const std::string rows = estimates(runs_[run], kind, converged);
          if (rows.empty()) continue;
          plots += fmt::format("{}{} using 1:2:3 with yerrorbars pt {} ps 0.7 lc rgb '{}' title {}",
                               plots.empty() ? "" : ", ", data(rows), converged ? 7 : 6, kColors[run % kColors.size()],
                               quoted(runs_[run].name + (converged ? "" : ", not converged")));
        }
      }
      if (!plots.empty()) panels.emplace_back(kind, plots);
    }
    if (panels.empty()) return;
    begin("llc", panels.size(), "lambda_hat with bars of 1.96 standard errors", 480, 340);
    step_axis();
    text_ +=
        "set offsets 0, 0, graph 0.08, graph 0.08\nset yrange [*:*]\nset key default\nset key bottom right font ',8'\n";
    for (const auto& [kind, plots] : panels)
      text_ += fmt::format("set title '{} LLC'\nplot {}\n", to_string(kind), plots);
    end();
  }

  const std::vector<log::Run>& runs_;
  fs::path directory_;
  std::string format_, text_;
  std::vector<std::map<std::pair<std::string, Side>, Readings>> readings_;  ///< of every run, by layer and side
  std::vector<std::string> layers_;  ///< of all runs, in order of their first appearance
  std::set<std::string> seen_;       ///< those in layers_
  std::set<std::int64_t> steps_;
  std::vector<fs::path> pictures_;
  int blocks_ = 0;
};

/// Lets gnuplot run the script, and throws what it complains of.
void run_gnuplot(const fs::path& script) {
  std::string path;
  for (const char c : script.string()) path += c == '\'' ? std::string("'\\''") : std::string(1, c);
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(("gnuplot '" + path + "' 2>&1").c_str(), "r"), pclose);
  if (!pipe) throw IoError("gnuplot cannot be started");
  std::string said;
  std::array<char, 4096> buffer;
  for (std::size_t count; (count = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) > 0;)
    said.append(buffer.data(), count);
  const int status = pclose(pipe.release());
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    throw IoError("figures are drawn by gnuplot, which is not installed (Debian: gnuplot-nox)");
  std::replace(said.begin(), said.end(), '\n', ' ');
  throw IoError(fmt::format("gnuplot failed on {}: {}", script.string(), said));
}

}  // namespace

std::vector<fs::path> write_figures(const std::vector<log::Run>& runs, const fs::path& directory,
                                    const std::string& format) {
  log::make_folder(directory);
  const Script script(runs, directory, format);
  const fs::path file = directory / "figures.gp";
  log::replace_file(file, script.text());
  run_gnuplot(file);
  for (const fs::path& picture : script.pictures()) {
    std::error_code missing;
    if (const auto size = fs::file_size(picture, missing); missing || size == 0)
      throw IoError(fmt::format("gnuplot did not write {}", picture.string()));
  }
  return script.pictures();
}

}  // namespace dds::tool
