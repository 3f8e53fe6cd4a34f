#include <dds/run.hpp>
#include <set>

#include "src/base/check.hpp"
#include "src/log/json.hpp"
#include "src/log/run_files.hpp"
#include "src/log/spectra.hpp"

namespace dds::log {
namespace {

/// The end of a directory's path, so many names of it.
std::string last_components(const std::filesystem::path& directory, int count) {
  std::filesystem::path left = std::filesystem::canonical(directory), end;
  for (int i = 0; i < count && left.has_relative_path(); ++i) {
    end = end.empty() ? left.filename() : left.filename() / end;
    left = left.parent_path();
  }
  return end.string();
}

/// Up to version 2 a reading without numbers had rank 0, no dead directions and 0 rows.
void remove_stand_ins(Signature& signature) {
  if (!signature.sigma_max) {
    signature.rank = signature.dead_directions = std::nullopt;
    signature.at_floor = std::nullopt;
  }
  if (signature.rows == 0) {
    signature.rows = signature.width = signature.structural_bound = std::nullopt;
    signature.row_mode = std::nullopt;
  }
}

}  // namespace

Run read_run(const std::filesystem::path& directory) {
  Run run;
  run.directory = directory;
  const nlohmann::ordered_json description = read_description(directory);  // throws if there is no such directory
  run.name = last_components(directory, 1);
  run.schema_version = version_of(description);
  for (const auto& [key, value] : description.items()) run.description[key] = json_text(value);
  // The rows first: of a run that is being written the spectra are then never behind.
  run.signatures = read_csv<Signature>(directory / kSignaturesCsv, run.schema_version).rows;
  const bool two_files = run.schema_version <= 2;
  if (two_files) {
    for (Signature& signature : run.signatures) remove_stand_ins(signature);
  }
  take_spectra(directory / (two_files ? kSignaturesJsonl : kSpectraJsonl), run.signatures);
  run.estimates = read_csv<LlcEstimate>(directory / kLlcCsv, run.schema_version).rows;
  run.metrics = read_csv<Metric>(directory / kMetricsCsv, run.schema_version).rows;
  return run;
}

std::vector<Run> read_runs(const std::vector<std::filesystem::path>& directories) {
  check_not_empty("read_runs", "the list of run directories", directories, "at least one");
  std::vector<Run> runs;
  std::set<std::filesystem::path> seen;
  for (const std::filesystem::path& directory : directories) {
    runs.push_back(read_run(directory));
    check(seen.insert(std::filesystem::canonical(directory)).second, "read_runs", "a run directory", directory.string(),
          "one that is not given twice");
  }
  for (int components = 2;; ++components) {
    std::set<std::string> names;
    for (const Run& run : runs) names.insert(run.name);
    if (names.size() == runs.size()) return runs;
    for (Run& run : runs) run.name = last_components(run.directory, components);
  }
}

}  // namespace dds::log
