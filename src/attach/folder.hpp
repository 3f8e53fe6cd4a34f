// The run directory of a process, made when there is something to write: most processes of a command train nothing.
#pragma once

#include <dds/error.hpp>
#include <dds/log.hpp>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace dds::attach {

class Folder : public log::Sink {
 public:
  explicit Folder(std::filesystem::path path) : path_(std::move(path)) {}
  void write(const Signature& signature) override {
    if (signature.sigma_max) read_.insert(signature.layer);
    put(signature);
  }
  void write(const LlcEstimate& estimate) override { put(estimate); }
  void write(const Metric& metric) override { put(metric); }
  void describe(const std::string& key, const std::string& json) override;
  /// Makes it now, though there is nothing to write yet.
  void open() { opened(); }
  /// Layers of which numbers came.
  const std::set<std::string>& layers_read() const { return read_; }
  bool is_there() const { return directory_ != nullptr; }
  /// Where it is, once it was made.
  const std::filesystem::path& path() const { return path_; }

 private:
  using Row = std::variant<Signature, LlcEstimate, Metric>;
  static constexpr std::size_t kMostWaiting = 10000;

  /// A row for which no directory can be made waits for the next.
  template <class T>
  void put(const T& row) {
    try {
      opened();
    } catch (const IoError&) {
      if (waiting_.size() < kMostWaiting) waiting_.push_back(row);
      throw;
    }
    directory_->write(row);
  }

  /// A directory that another process has taken, or that holds anything, is left to it: PATH.PID instead.
  log::Sink& opened();

  std::filesystem::path path_;  ///< as it was asked for, until it is made
  std::set<std::string> read_;
  log::SinkPtr directory_;
  std::map<std::string, std::string> description_;  ///< until then
  std::vector<Row> waiting_;                        ///< the same
};

}  // namespace dds::attach
