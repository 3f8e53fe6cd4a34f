// `dds watch`: the state of a run, again and again while it is being written.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <dds/interrupt.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>

#include "src/base/stopwatch.hpp"
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
  return line.empty() ? "" : line + "\n";
}

std::string estimate_line(const log::Run& run) {
  if (run.estimates.empty()) return "";
  const LlcEstimate& last = run.estimates.back();
  return fmt::format("LLC at step {}: {} +- {} ({})\n", last.step, show(last.lambda), show(last.standard_error),
                     printable(last.verdict()));
}

std::string screen_of(const log::Run& run) {
  std::int64_t last_step = 0;
  for (const Signature& s : run.signatures) last_step = std::max(last_step, s.step);
  for (const Metric& m : run.metrics) last_step = std::max(last_step, m.step);
  std::string text = fmt::format("{}   step {}   {} readings, {} LLC estimates\n", run.directory.string(), last_step,
                                 run.signatures.size(), run.estimates.size());
  text += metrics_line(run) + estimate_line(run) + "\n";
  Table table({"<layer", "<side", "<source", "step", "sigma_min", "log10 lambda_min+", "log det+ / rank", "rank",
               "bound", "dead", "<status"});
  for (const Signature* s : last_readings(run)) {
    table.add({s->layer, std::string(to_string(s->side)), std::string(to_string(s->source)), std::to_string(s->step),
               sigma_min_text(*s), show(s->log10_lambda_min_plus), show(s->volume_per_dimension()), show(s->rank),
               show(s->structural_bound), show(s->dead_directions), to_string(s->status)});
  }
  if (table.empty()) return text + "No signature was logged yet.\n";
  return text + table.text() + "* at the floor: rounding noise\n";
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
  std::string text = screen_of(log::read_run(options.run));
  if (options.once || isatty(STDOUT_FILENO) == 0) {
    fmt::print("{}", text);
    return;
  }
  const CatchInterrupts catching;
  Sizes drawn;
  {
    Screen screen;
    std::optional<Stopwatch> since_last_look;
    while (!interrupted()) {
      if (!since_last_look || since_last_look->seconds() >= options.interval) {
        since_last_look.emplace();
        if (Sizes sizes = sizes_of(options.run); sizes != drawn) {
          drawn = std::move(sizes);
          text = screen_of(log::read_run(options.run));
          screen.draw(text + "\nCtrl-C ends.\n");
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
      "Shows the last reading of every series, the last metrics and the last LLC estimate, again whenever the log has "
      "grown,\n"
      "until Ctrl-C. Where the standard output is no terminal the table is printed once.\n\n"
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
