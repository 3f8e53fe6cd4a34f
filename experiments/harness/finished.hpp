// Pieces of a long run that are done, so that an interrupted run goes on where it was.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "experiments/harness/harness.hpp"
#include "src/log/file.hpp"

namespace dds::experiments {

/// The file finished.jsonl in the run's folder: what the run is of, then a line for each piece. A run into a folder
/// that has one takes its pieces as they are, whatever build of the program made them; a last line that a crash cut off
/// is dropped. One run at a time may use a folder. Its calls may come from several threads.
class Finished {
 public:
  /// Throws IoError if the file cannot be read or written or another run has the folder, InvalidArgument if it is of
  /// another experiment, preset, seed or LibTorch.
  explicit Finished(const RunOptions& options);

  /// The piece `key`, or `work()` and its line in the file. Throws IoError if that cannot be written, and what `work`
  /// throws.
  template <class Work>
  nlohmann::json piece(const std::string& key, const Work& work) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = pieces_.find(key); found != pieces_.end()) return found->second;
    }
    nlohmann::json made = work();
    add(key, made);
    return made;
  }
  /// How many pieces an earlier run left.
  std::size_t taken_over() const { return taken_over_; }

 private:
  void add(const std::string& key, const nlohmann::json& value);

  std::filesystem::path path_;
  std::optional<log::Lock> lock_;
  std::map<std::string, nlohmann::json> pieces_;
  std::size_t taken_over_ = 0;
  log::AppendFile file_;
  std::mutex mutex_;
};

}  // namespace dds::experiments
