#include "experiments/harness/finished.hpp"

#include <fmt/format.h>
#include <torch/version.h>

#include <dds/error.hpp>
#include <sstream>

#include "src/log/json.hpp"

namespace dds::experiments {

Finished::Finished(const RunOptions& options) : path_(options.out / "finished.jsonl") {
  using nlohmann::json;
  const json run{{"experiment", options.experiment},
                 {"preset", options.preset},
                 {"seed", options.seed},
                 {"libtorch", TORCH_VERSION}};
  lock_.emplace(log::make_folder(options.out));
  std::string whole = std::filesystem::exists(path_) ? log::read_file(path_) : "";
  whole.resize(whole.rfind('\n') + 1);  // without what a crash cut off; none: nothing
  std::istringstream lines(whole);
  std::string line;
  if (std::getline(lines, line) && log::parse_json<json>(line) != run) {
    throw InvalidArgument(
        fmt::format("{} is of another run: {}; expected {}, or a new folder", path_.string(), line, run.dump()));
  }
  while (std::getline(lines, line)) {
    const json piece = log::parse_json<json>(line);
    if (!piece.is_object() || !piece.contains("value") || !piece.contains("key") || !piece["key"].is_string()) {
      throw InvalidArgument(fmt::format("{}: '{}' is no piece of a run", path_.string(), line.substr(0, 80)));
    }
    pieces_.emplace(piece["key"], piece["value"]);
  }
  taken_over_ = pieces_.size();
  file_ = log::AppendFile(path_, whole.size());
  if (whole.empty()) file_.append(run.dump() + '\n');
}

void Finished::add(const std::string& key, const nlohmann::json& value) {
  const std::lock_guard lock(mutex_);
  file_.append(nlohmann::json{{"key", key}, {"value", value}}.dump() + '\n');
  pieces_.emplace(key, value);
}

}  // namespace dds::experiments
