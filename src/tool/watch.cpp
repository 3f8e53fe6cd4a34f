// `dds watch`: the state of a run, again and again while it is being written.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <dds/interrupt.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "src/base/stopwatch.hpp"
#include "src/log/cause_findings.hpp"
#include "src/log/run_files.hpp"
#include "src/tool/command.hpp"
#include "src/tool/runs.hpp"
#include "src/tool/streams.hpp"
#include "src/tool/table.hpp"

namespace dds::tool {
namespace {

struct WatchArguments {
  std::string run;
  double interval = 1;
  bool once = false;
};

/// Sizes of the files: what is read again only once one of them has grown.
using Sizes = std::vector<std::uintmax_t>;

Sizes sizes_of(const std::filesystem::path& run) {
  Sizes sizes;
  for (const std::string_view name : {log::kSignaturesCsv, log::kLlcCsv, log::kMetricsCsv, log::kRunJson}) {
    std::error_code missing;
    sizes.push_back(std::filesystem::file_size(run / name, missing));
  }
  return sizes;
}

std::string metrics_line(const log::Run& run) {
  std::map<std::string, const Metric*> last;
  for (const Metric& metric : run.metrics) last[metric.name] = &metric;
  std::string line;
  for (const auto& [name, metric] : last)
    line += fmt::format("{}{} {}", line.empty() ? "" : "   ", printable(name), show(metric->value));
  return line;
}

std::string estimate_line(const log::Run& run) {
  if (run.estimates.empty()) return "";
  const LlcEstimate& last = run.estimates.back();
  return fmt::format("LLC at step {}: {} +- {} ({})", last.step, show(last.lambda), show(last.standard_error),
                     printable(last.verdict()));
}

/// Why directions are dead, the worst first.
std::vector<std::string> cause_lines(const log::Run& run) {
  const std::vector<log::LastingCause> lasting = log::lasting_causes(run);
  constexpr std::size_t kMost = 3;
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < std::min(kMost, lasting.size()); ++i) {
    lines.push_back(printable(log::sentence(lasting[i])));
  }
  if (lasting.size() > kMost)
    lines.push_back(fmt::format("{} more causes; dds report shows all", lasting.size() - kMost));
  return lines;
}

/// The larger share of dead directions is worse, then a reading without numbers, then a smallest value nearer to the
/// floor: the order of the report's first table.
bool is_worse(const Signature* a, const Signature* b) {
  const auto rank = [](const Signature& s) {
    const double dead = static_cast<double>(s.dead_directions.value_or(0)) /
                        static_cast<double>(std::max<std::int64_t>(1, s.structural_bound.value_or(1)));
    const double above = s.sigma_min_plus && s.floor && *s.floor > 0 ? *s.sigma_min_plus / *s.floor : INFINITY;
    return std::tuple(-dead, s.has_numbers(), above);
  };
  return rank(*a) < rank(*b);
}

/// What a terminal shows: no line is longer, and there are no more lines.
struct Size {
  std::size_t columns = SIZE_MAX, lines = SIZE_MAX;
};

Size size_of_terminal() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {80, 24};
  return {size.ws_col, size.ws_row};
}

Table table_of(const log::Run& run) {
  Table table({"<layer", "<side", "<source", "step", "sigma_min", "log10 lambda_min+", "log det+ / rank", "rank",
               "bound", "dead", "<status"});
  std::vector<const Signature*> readings = last_readings(run);
  std::stable_sort(readings.begin(), readings.end(), is_worse);
  for (const Signature* s : readings) {
    table.add({s->layer, std::string(to_string(s->side)), std::string(to_string(s->source)), std::to_string(s->step),
               sigma_min_text(*s), show(s->log10_lambda_min_plus), show(s->volume_per_dimension()), show(s->rank),
               show(s->structural_bound), show(s->dead_directions), to_string(s->status)});
  }
  return table;
}

std::string screen_of(const log::Run& run, Size size) {
  std::int64_t last_step = 0;
  for (const Signature& s : run.signatures) last_step = std::max(last_step, s.step);
  for (const Metric& m : run.metrics) last_step = std::max(last_step, m.step);
  const std::string counts =
      fmt::format("   step {}   {} readings, {} LLC estimates", last_step, run.signatures.size(), run.estimates.size());
  const std::size_t rest = size.columns - std::min(size.columns, counts.size());
  std::string text = cut_in_middle(run.directory.string(), rest) + counts + "\n";
  std::size_t lines = 1;
  std::vector<std::string> above = cause_lines(run);
  above.insert(above.end(), {metrics_line(run), estimate_line(run)});
  for (const std::string& line : above) {
    if (!line.empty()) text += cut_in_middle(line, size.columns) + "\n", ++lines;
  }
  text += "\n";
  Table table = table_of(run);
  if (table.empty()) return text + "No signature was logged yet.\n";
  table.fit(size.columns, {"source", "log det+ / rank", "step", "log10 lambda_min+", "bound"});
  // Below the table stand its legend and how to end; between them may be how many rows are left out.
  constexpr std::size_t kOthers = 6;
  const std::size_t all = table.rows(), room = size.lines - std::min(size.lines, lines + kOthers);
  if (all > room) table.truncate(room);
  text += table.text();
  if (all > room) text += fmt::format("{} more, none of them worse; dds report shows all\n", all - room);
  return text + "* at the floor: rounding noise\n";
}

/// Draws over what the terminal showed before; the terminal is as it was when this goes.
class Screen {
 public:
  Screen() { fmt::print("\x1b[?1049h\x1b[?25l"); }
  ~Screen() {
    std::fputs("\x1b[?25h\x1b[?1049l", stdout);  // does not throw where the terminal is gone
    std::fflush(stdout);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  void draw(const std::string& text) {
    fmt::print("\x1b[H\x1b[2J{}", text);
    flush_output();
  }
};

void watch(const WatchArguments& options) {
  if (options.once || isatty(STDOUT_FILENO) == 0) {
    fmt::print("{}", screen_of(log::read_run(options.run), {}));
    return;
  }
  std::string text = screen_of(log::read_run(options.run), size_of_terminal());
  const CatchInterrupts catching;
  using Drawn = std::tuple<Sizes, std::size_t, std::size_t>;
  Drawn drawn;
  {
    Screen screen;
    std::optional<Stopwatch> since_last_look;
    while (!interrupted()) {
      if (!since_last_look || since_last_look->seconds() >= options.interval) {
        since_last_look.emplace();
        const Size terminal = size_of_terminal();
        if (Drawn now{sizes_of(options.run), terminal.columns, terminal.lines}; now != drawn) {
          drawn = std::move(now);
          text = screen_of(log::read_run(options.run), terminal);
          screen.draw(text + "Ctrl-C ends.");
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  fmt::print("{}", text);
}

}  // namespace

void add_watch(CLI::App& program) {
  CLI::App* command = program.add_subcommand("watch", "Live table of a run that is being written");
  command->footer(
      "Shows the last reading of every series, the worst first, the last metrics and the last LLC estimate, again\n"
      "whenever the log has grown, until Ctrl-C. A terminal shows the rows and columns that it has room for. Where "
      "the\n"
      "standard output is no terminal the whole table is printed once.\n\n"
      "Examples:\n"
      "  dds watch runs/a\n"
      "  dds watch runs/a --once | grep fc1");
  const auto options = std::make_shared<WatchArguments>();
  command->add_option("RUN", options->run, "run directory")->required();
  command->add_option("--interval", options->interval, "seconds between two looks")
      ->check(CLI::Range(0.01, 86400.0))
      ->capture_default_str();
  command->add_flag("--once", options->once, "print the table and end");
  command->callback([options] {
    // Neither below a range nor above it.
    if (std::isnan(options->interval)) throw CLI::ValidationError("--interval", "nan is no number of seconds");
    watch(*options);
  });
}

}  // namespace dds::tool
