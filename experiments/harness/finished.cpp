#include "experiments/harness/finished.hpp"

#include <fmt/format.h>
#include <torch/version.h>

#include <dds/error.hpp>

namespace dds::experiments {

Finished::Finished(const RunOptions& options) : path_(options.out / "finished.jsonl") {
  using nlohmann::json;
  const json run{{"experiment", options.experiment},
                 {"preset", options.preset},
                 {"seed", options.seed},
                 {"libtorch", TORCH_VERSION}};
  std::string kept = run.dump() + '\n';
  if (std::filesystem::exists(path_)) {
    std::ifstream file(path_);
    if (!file) throw IoError(fmt::format("{}: cannot be read", path_.string()));
    std::string line;
    if (std::getline(file, line) && json::parse(line, nullptr, /*allow_exceptions=*/false) != run) {
      throw InvalidArgument(
          fmt::format("{} is of another run: {}; expected {}, or a new folder", path_.string(), line, run.dump()));
    }
    while (std::getline(file, line) && !file.eof()) {
      const json piece = json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!piece.is_object() || !piece.contains("key") || !piece.contains("value")) {
        throw InvalidArgument(fmt::format("{}: '{}' is no piece of a run", path_.string(), line.substr(0, 80)));
      }
      pieces_.emplace(piece["key"], piece["value"]);
      kept += line + '\n';
    }
    taken_over_ = pieces_.size();
  }
  // Written anew, whole or not at all, without what a crash cut off.
  std::filesystem::create_directories(options.out);
  const std::filesystem::path unfinished = path_.string() + ".tmp";
  {
    std::ofstream file(unfinished);
    file << kept;
    if (!file.flush()) throw IoError(fmt::format("{}: cannot be written", unfinished.string()));
  }
  std::filesystem::rename(unfinished, path_);
  file_.open(path_, std::ios::app);
}

void Finished::add(const std::string& key, const nlohmann::json& value) {
  const std::lock_guard lock(mutex_);
  file_ << nlohmann::json{{"key", key}, {"value", value}}.dump() << '\n';
  if (!file_.flush()) throw IoError(fmt::format("{}: cannot be written", path_.string()));
  pieces_.emplace(key, value);
}

}  // namespace dds::experiments
