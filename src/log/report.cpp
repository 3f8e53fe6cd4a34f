// report.html: the runs' data on a page, and the scripts of src/log/report that draw them.
#include <fmt/format.h>

#include <algorithm>
#include <dds/report.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/logger.hpp"
#include "src/log/assets.hpp"
#include "src/log/comparison.hpp"
#include "src/log/counts.hpp"
#include "src/log/file.hpp"
#include "src/log/findings.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"
#include "src/log/run_files.hpp"
#include "src/page/page.hpp"

namespace dds {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

json number(const std::optional<double>& value) { return value ? json(*value) : json(); }

/// A table as the page takes it: {column: [value of row 0, value of row 1, ...]}.
template <class Row>
ordered_json columns(const std::vector<Row>& rows) {
  ordered_json table;
  for (const auto& column : schema::columns_of<Row>()) {
    json values = json::array();
    for (const Row& row : rows) values.push_back(log::cell(row, column));
    table[std::string(column.name)] = values;
  }
  return table;
}

/// The table of signatures with the quantities that follow from its columns.
ordered_json signature_columns(const std::vector<Signature>& signatures) {
  ordered_json table = columns(signatures);
  json volumes = json::array(), shares = json::array();
  for (const Signature& s : signatures) {
    volumes.push_back(number(s.volume_per_dimension()));
    shares.push_back(number(s.log10_lambda_share()));
  }
  table["volume_per_dimension"] = volumes;
  table["log10_lambda_share"] = shares;
  return table;
}

template <class Row>
ordered_json column_notes() {
  ordered_json notes = json::array();
  for (const auto& column : schema::columns_of<Row>()) notes.push_back({column.name, column.unit, column.meaning});
  return notes;
}

/// {name: [what it is, what to do]}: the tables of statuses, verdicts, terms and causes of a page.
void add_terms(std::string_view page, const std::string& prefix, ordered_json& terms) {
  std::istringstream guide{std::string(page)};
  bool wanted = false;
  for (std::string line; std::getline(guide, line);) {
    if (!line.starts_with("| ")) {
      wanted = wanted && line.starts_with("|");
      continue;
    }
    std::erase(line, '`');
    std::erase(line, '\\');
    line.erase(line.find_last_not_of(" |") + 1);
    std::vector<std::string> cells;
    for (std::size_t begin = 2; begin < line.size();) {
      const std::size_t end = std::min(line.find(" | ", begin), line.size());
      cells.push_back(line.substr(begin, end - begin));
      begin = end + 3;
    }
    if (cells.size() < 2) continue;
    const std::string& name = cells.front();
    if (wanted) {
      terms[prefix + name] = {cells[1], cells.size() > 2 ? cells[2] : ""};
    } else {
      wanted = name == "status" || name == "verdict" || name == "term" || name == "cause";
    }
  }
}

/// {row of the table of signatures: its singular values}, where they were logged.
json spectra(const std::vector<Signature>& signatures) {
  json out = json::object();
  for (std::size_t i = 0; i < signatures.size(); ++i) {
    if (!signatures[i].spectrum.empty()) out[std::to_string(i)] = signatures[i].spectrum;
  }
  return out;
}

json correlation(const RankCorrelation& c) {
  return {{"n", c.n}, {"rho", number(c.rho)}, {"low", number(c.low)}, {"high", number(c.high)}};
}

ordered_json comparison_json(const log::Comparison& comparison) {
  ordered_json out{{"layer", comparison.layer},
                   {"measure", comparison.measure->key},
                   {"kind", to_string(comparison.kind)},
                   {"raw", correlation(comparison.raw)},
                   {"detrended", correlation(comparison.detrended)},
                   {"pairs", json::array()}};
  for (const auto& pair : comparison.pairs) {
    out["pairs"].push_back({{"step", pair.step},
                            {"reading", pair.reading},
                            {"at_floor", pair.at_floor},
                            {"lambda", number(pair.estimate->lambda)},
                            {"standard_error", number(pair.estimate->standard_error)},
                            {"verdict", pair.estimate->verdict()}});
  }
  return out;
}

ordered_json count_json(const DecayCount& count) {
  std::string rates;
  for (const RateGroup& group : count.groups) {
    rates += fmt::format("{}{} at {:.2f} [{:.2f}, {:.2f}]", rates.empty() ? "" : ", ", group.directions, group.rate,
                         group.low, group.high);
  }
  return {{"layer", count.series.layer},
          {"side", to_string(count.series.side)},
          {"source", to_string(count.series.source)},
          {"fisher_kind", count.series.fisher_kind ? json(to_string(*count.series.fisher_kind)) : json()},
          {"status", to_string(count.status)},
          {"count", count.count ? json(*count.count) : json()},
          {"low", count.low},
          {"high", count.high},
          {"rank", count.fixed_rank},
          {"first_step", count.first_step},
          {"last_step", count.last_step},
          {"rates", rates},
          {"ratio", number(count.volume_ratio)},
          {"ratio_low", number(count.volume_ratio_low)},
          {"ratio_high", number(count.volume_ratio_high)},
          {"decades", number(count.decades)}};
}

/// What the page is told of one run.
ordered_json run_data(const log::Run& run) {
  const auto comparisons = log::compare(run);
  const auto counts = log::decay_counts(run);
  ordered_json data{{"name", run.name},
                    {"run", log::read_description(run.directory)},
                    {"signatures", signature_columns(run.signatures)},
                    {"llc", columns(run.estimates)},
                    {"metrics", columns(run.metrics)},
                    {"spectra", spectra(run.signatures)},
                    {"findings", log::findings(run, comparisons, counts)},
                    {"comparisons", json::array()},
                    {"counts", json::array()}};
  for (const log::Comparison& comparison : comparisons) data["comparisons"].push_back(comparison_json(comparison));
  for (const DecayCount& count : counts) data["counts"].push_back(count_json(count));
  return data;
}

ordered_json page_data(const std::vector<log::Run>& runs) {
  ordered_json terms = json::object();
  add_terms(log::asset::guide(), "", terms);
  add_terms(log::asset::causes(), "cause ", terms);
  ordered_json data{{"runs", json::array()},
                    {"measures", json::array()},
                    {"terms", terms},
                    {"notes",
                     {{"signatures.csv", column_notes<Signature>()},
                      {"llc.csv", column_notes<LlcEstimate>()},
                      {"metrics.csv", column_notes<Metric>()}}}};
  for (const log::Run& run : runs) data["runs"].push_back(run_data(run));
  for (const log::Measure& measure : log::measures()) {
    data["measures"].push_back({{"key", measure.key}, {"label", measure.label}});
  }
  return data;
}

}  // namespace

std::filesystem::path write_report(const std::vector<std::filesystem::path>& run_directories,
                                   const std::filesystem::path& page) {
  const std::string data = log::json_text(page_data(log::read_runs(run_directories)));
  log::replace_file(page, dds::page::html(log::asset::body(), data, log::asset::script()));
  log::tell(Level::Info, fmt::format("wrote {}", page.string()));
  return page;
}

std::filesystem::path write_report(const std::filesystem::path& run_directory) {
  return write_report(std::vector{run_directory}, run_directory / "report.html");
}

}  // namespace dds
