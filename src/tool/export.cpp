// `dds export`: the rows of runs in other formats.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <dds/schema.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/base/check.hpp"
#include "src/log/csv.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"
#include "src/log/run_files.hpp"
#include "src/tool/command.hpp"
#include "src/tool/runs.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

struct ExportArguments {
  std::vector<std::string> runs;
  std::string to;
  std::string out;
  bool overwrite = false;
};

template <class Row>
const std::vector<Row>& rows_of(const log::Run& run) {
  if constexpr (std::is_same_v<Row, Signature>) return run.signatures;
  if constexpr (std::is_same_v<Row, LlcEstimate>) return run.estimates;
  if constexpr (std::is_same_v<Row, Metric>) return run.metrics;
}

template <class Row>
std::string csv_of(const std::vector<log::Run>& runs) {
  std::vector<std::string> fields = {"run"};
  for (const auto& column : schema::columns_of<Row>()) fields.emplace_back(column.name);
  std::string content = log::csv::line(fields);
  for (const log::Run& run : runs) {
    for (const Row& row : rows_of<Row>(run)) {
      fields = {run.name};
      for (const auto& column : schema::columns_of<Row>()) fields.push_back(log::field_text(log::cell(row, column)));
      content += log::csv::line(fields);
    }
  }
  return content;
}

template <class Row>
std::string jsonl_of(const std::vector<log::Run>& runs) {
  std::string content;
  for (const log::Run& run : runs) {
    for (const Row& row : rows_of<Row>(run)) {
      nlohmann::ordered_json object{{"run", run.name}};
      for (const auto& column : schema::columns_of<Row>()) object[std::string(column.name)] = log::cell(row, column);
      if constexpr (std::is_same_v<Row, Signature>) {
        if (!row.spectrum.empty()) object["spectrum"] = row.spectrum;
      }
      content += log::json_text(object) + "\n";
    }
  }
  return content;
}

/// Nothing is written where one of the files is in the way.
void write_tables(const std::vector<log::Run>& runs, const ExportArguments& options) {
  std::vector<std::pair<std::string, std::string>> files;
  if (options.to == "csv") {
    files = {
        {"signatures", csv_of<Signature>(runs)}, {"llc", csv_of<LlcEstimate>(runs)}, {"metrics", csv_of<Metric>(runs)}};
  } else {
    files = {{"signatures", jsonl_of<Signature>(runs)},
             {"llc", jsonl_of<LlcEstimate>(runs)},
             {"metrics", jsonl_of<Metric>(runs)}};
  }
  const auto path_of = [&](const std::string& name) { return fs::path(options.out) / (name + "." + options.to); };
  for (const auto& [name, text] : files) check_free("export", path_of(name), options.overwrite);
  for (const auto& [name, text] : files) {
    log::replace_file(path_of(name), text);
    fmt::print("{}\n", path_of(name).string());
  }
}

/// The log does not say when its rows came: all get the time at which the last was written.
double wall_time_of(const log::Run& run) {
  const auto written = std::chrono::file_clock::to_sys(fs::last_write_time(run.directory / log::kSignaturesCsv));
  return std::chrono::duration<double>(written.time_since_epoch()).count();
}

/// TensorBoard shows all event files of a folder as one run: a second export would draw every curve twice.
void write_tensorboard(const std::vector<log::Run>& runs, const ExportArguments& options) {
  const auto folder_of = [&](const log::Run& run) { return fs::path(options.out) / run.name; };
  for (const log::Run& run : runs) {
    const bool is_free = !log::is_there(folder_of(run)) || log::first_entry(folder_of(run)).empty();
    check(is_free, "export", "the folder to write", folder_of(run).string(), "one that is empty or not there yet");
  }
  for (const log::Run& run : runs) {
    const fs::path folder = folder_of(run);
    const log::SinkPtr events = log::tensorboard(folder, {.wall_time = [time = wall_time_of(run)] { return time; }});
    for (const Signature& row : run.signatures) events->write(row);
    for (const LlcEstimate& row : run.estimates) events->write(row);
    for (const Metric& row : run.metrics) events->write(row);
    fmt::print("{}\n", folder.string());
  }
}

void export_runs(const ExportArguments& options) {
  const std::vector<log::Run> runs = log::read_runs({options.runs.begin(), options.runs.end()});
  const fs::path out = options.out;
  check(!fs::exists(out / log::kRunJson), "export", "--out", options.out,
        "a folder that is no run, whose own files have these names");
  log::make_folder(out);
  if (options.to == "tensorboard") {
    write_tensorboard(runs, options);
  } else {
    write_tables(runs, options);
  }
}

}  // namespace

void add_export(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("export", "Rows of one run or of several as CSV, JSON Lines or for TensorBoard");
  command->footer(
      "csv, jsonl   signatures, llc and metrics of all runs together, with a first column 'run'; jsonl has the spectra "
      "too\n"
      "tensorboard  a folder a run, with one event file, as log::tensorboard writes it while a program trains\n"
      "Columns, units and missing values: <dds/schema.hpp>. Prints the paths of what it wrote.\n\n"
      "Examples:\n"
      "  dds export runs/a runs/b --to csv --out tables\n"
      "  dds export runs/a --to tensorboard --out tb && tensorboard --logdir tb");
  const auto options = std::make_shared<ExportArguments>();
  command->add_option("RUN", options->runs, "run directories")->required();
  command->add_option("--to", options->to, "csv, jsonl or tensorboard")
      ->required()
      ->check(CLI::IsMember({"csv", "jsonl", "tensorboard"}));
  command->add_option("--out", options->out, "folder to write into")->required();
  command->add_flag("--overwrite", options->overwrite, "replace tables that are there");
  command->callback([options] { export_runs(*options); });
}

}  // namespace dds::tool
