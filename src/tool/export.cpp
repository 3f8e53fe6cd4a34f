// `dds export`: the rows of runs in other formats.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <dds/schema.hpp>
#include <filesystem>
#include <memory>
#include <string>
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
};

template <class Row>
const std::vector<Row>& rows_of(const log::Run& run) {
  if constexpr (std::is_same_v<Row, Signature>) return run.signatures;
  if constexpr (std::is_same_v<Row, LlcEstimate>) return run.estimates;
  if constexpr (std::is_same_v<Row, Metric>) return run.metrics;
}

void write(const fs::path& path, const std::string& content) {
  log::replace_file(path, content);
  fmt::print("{}\n", path.string());
}

template <class Row>
void write_csv(const std::vector<log::Run>& runs, const fs::path& path) {
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
  write(path, content);
}

template <class Row>
void write_jsonl(const std::vector<log::Run>& runs, const fs::path& path) {
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
  write(path, content);
}

/// The log does not say when its rows came: all get the time at which the last was written.
double wall_time_of(const log::Run& run) {
  const auto written = std::chrono::file_clock::to_sys(fs::last_write_time(run.directory / log::kSignaturesCsv));
  return std::chrono::duration<double>(written.time_since_epoch()).count();
}

void write_tensorboard(const std::vector<log::Run>& runs, const fs::path& out) {
  for (const log::Run& run : runs) {
    const fs::path folder = out / run.name;
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
  if (options.to == "csv") {
    write_csv<Signature>(runs, out / "signatures.csv");
    write_csv<LlcEstimate>(runs, out / "llc.csv");
    write_csv<Metric>(runs, out / "metrics.csv");
  } else if (options.to == "jsonl") {
    write_jsonl<Signature>(runs, out / "signatures.jsonl");
    write_jsonl<LlcEstimate>(runs, out / "llc.jsonl");
    write_jsonl<Metric>(runs, out / "metrics.jsonl");
  } else {
    write_tensorboard(runs, out);
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
  command->callback([options] { export_runs(*options); });
}

}  // namespace dds::tool
