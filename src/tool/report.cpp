// `dds report`: one page of one run or of several, or their charts as pictures.
#include <fmt/format.h>

#include <cstdio>
#include <dds/report.hpp>
#include <dds/run.hpp>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "src/tool/command.hpp"
#include "src/tool/figures.hpp"
#include "src/tool/runs.hpp"

namespace dds::tool {
namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out, figures;
  std::string format = "svg";
  bool overwrite = false;
};

/// Whether the file is a page of ours, which a new one may replace.
bool is_page(const std::filesystem::path& file) {
  constexpr std::size_t kHead = 512;
  std::string head(kHead, '\0');
  std::ifstream(file, std::ios::binary).read(head.data(), kHead);
  return head.starts_with("<!DOCTYPE html>") && head.find("<title>DDS</title>") != std::string::npos;
}

void report(const ReportArguments& options) {
  if (!options.figures.empty()) {
    const auto runs = log::read_runs({options.runs.begin(), options.runs.end()});
    for (const auto& picture : write_figures(runs, options.figures, options.format))
      fmt::print("{}\n", picture.string());
    if (options.out.empty()) return;
  }
  if (options.runs.size() == 1 && options.out.empty()) {
    fmt::print("{}\n", write_report(options.runs.front()).string());
    return;
  }
  const std::filesystem::path page = options.out.empty() ? "report.html" : options.out;
  check_free("report", page, options.overwrite || is_page(page));
  fmt::print("{}\n", write_report({options.runs.begin(), options.runs.end()}, page).string());
}

}  // namespace

void add_report(CLI::App& program) {
  CLI::App* command = program.add_subcommand("report", "Page with charts of one run, or of several over each other");
  command->footer(
      "Writes one file that works offline, and prints its path. A run that is still being written can be reported on.\n"
      "With --figures, pictures of the main charts instead, drawn by gnuplot (24 layers; the heat maps have all), and "
      "the\n"
      "script that draws them, to be changed and run again; the page too where --out asks for it.\n\n"
      "Examples:\n"
      "  dds report runs/a                        # runs/a/report.html\n"
      "  dds report runs/a runs/b --out both.html # one page, a colour a run\n"
      "  dds report runs/a --figures pictures --format png");
  const auto options = std::make_shared<ReportArguments>();
  command->add_option("RUN", options->runs, "run directories")->required();
  command->add_option("--out", options->out,
                      "the page (default: report.html in the run; of several runs, in the current folder)");
  command->add_option("--figures", options->figures, "folder for pictures");
  command->add_option("--format", options->format, "svg or png")
      ->check(CLI::IsMember({"svg", "png"}))
      ->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "replace a file that is no such page");
  command->callback([options] { report(*options); });
}

}  // namespace dds::tool
