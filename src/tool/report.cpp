// `dds report`: one page of one run or of several.
#include <fmt/format.h>

#include <cstdio>
#include <dds/report.hpp>
#include <memory>
#include <string>
#include <vector>

#include "src/tool/command.hpp"

namespace dds::tool {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string out;
};

void report(const Options& options) {
  if (options.runs.size() == 1 && options.out.empty()) {
    fmt::print("{}\n", write_report(options.runs.front()).string());
    return;
  }
  const std::filesystem::path page = options.out.empty() ? "report.html" : options.out;
  fmt::print("{}\n", write_report({options.runs.begin(), options.runs.end()}, page).string());
}

}  // namespace

void add_report(CLI::App& program) {
  CLI::App* command = program.add_subcommand("report", "Page with charts of one run, or of several over each other");
  command->footer(
      "Writes one file that works offline, and prints its path. A run that is still being written can be reported "
      "on.\n\n"
      "Examples:\n"
      "  dds report runs/a                        # runs/a/report.html\n"
      "  dds report runs/a runs/b --out both.html # one page, a colour a run");
  const auto options = std::make_shared<Options>();
  command->add_option("RUN", options->runs, "run directories")->required();
  command->add_option("--out", options->out,
                      "the page (default: report.html in the run; of several runs, in the current folder)");
  command->callback([options] { report(*options); });
}

}  // namespace dds::tool
