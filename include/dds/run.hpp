// A run directory read back: what <dds/log.hpp>'s `directory` wrote, as the rows that were given to it.
//
//   const dds::log::Run run = dds::log::read_run("runs/a");
//   for (const dds::Signature& s : run.signatures) ...
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <dds/llc.hpp>
#include <dds/log.hpp>
#include <dds/signature.hpp>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace DDS_EXPORT dds {
namespace log {

/// All that a run directory holds, each kind of row in the order in which it was written.
struct Run {
  std::filesystem::path directory;
  /// The last component of the path. Of several runs: as many components as tell them apart.
  std::string name;
  std::int64_t schema_version = 0;
  /// run.json: what was given to Sink::describe, as JSON texts by key, and the log's own keys (<dds/schema.hpp>).
  std::map<std::string, std::string> description;
  std::vector<Signature> signatures;  ///< with Signature::spectrum, where it was logged
  std::vector<LlcEstimate> estimates;
  std::vector<Metric> metrics;
};

/// Reads a run of any schema version up to this library's. A number that a version has no column for is empty.
/// The run may still be written to: rows that are not whole yet are left out.
/// Throws IoError, naming the file and the line, if the directory holds no run, a later version, or a malformed file.
Run read_run(const std::filesystem::path& directory);

/// Several runs, each under a name of its own. Throws InvalidArgument if there is none or one is given twice.
std::vector<Run> read_runs(const std::vector<std::filesystem::path>& directories);

}  // namespace log
}  // namespace dds
