#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/schema.hpp>

#include "src/log/file.hpp"
#include "src/log/logger.hpp"
#include "src/log/record.hpp"
#include "src/log/run.hpp"

namespace dds::log {
namespace {

namespace fs = std::filesystem;

/// What is in the directory but for the lock and leavings of a crash; empty if nothing.
std::string first_entry(const fs::path& path) {
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    if (entry.path().filename() != ".lock" && !is_left_over(entry.path())) return entry.path().filename().string();
  }
  return "";
}

/// Refuses a directory that this run may not write into.
void check_directory(const fs::path& path, bool resume) {
  const std::string entry = first_entry(path);
  if (entry.empty()) return;
  if (!resume) {
    throw IoError(
        fmt::format("{} is not empty (it holds {}): choose another directory, or set DirectoryOptions::resume to "
                    "append to the run in it",
                    path.string(), entry));
  }
  read_description(path);  // throws if what is there is no run, or one of another schema
}

fs::path made_directory(const fs::path& path, bool resume) try {
  if (fs::exists(path) && !fs::is_directory(path))
    throw IoError(fmt::format("{} is a file, expected a directory", path.string()));
  fs::create_directories(path);
  check_directory(path, resume);
  return path;
} catch (const fs::filesystem_error& error) {
  throw IoError(fmt::format("cannot make {}: {}", path.string(), error.code().message()));
}

nlohmann::ordered_json opened_description(const fs::path& path) {
  nlohmann::ordered_json description;
  if (fs::exists(path / kRunJson)) description = read_description(path);
  description["schema_version"] = schema::kVersion;
  description["dds"] = DDS_VERSION;
  description["libtorch"] = TORCH_VERSION;
  return description;
}

/// Says what is about to be cut off a file behind its last whole row.
void tell_of_torn_row(const fs::path& path, std::size_t whole) {
  std::error_code missing;
  const auto size = fs::file_size(path, missing);
  if (!missing && size > whole)
    tell(Level::Warning, fmt::format("{}: {} bytes of a torn row are cut off", path.string(), size - whole));
}

/// Opens a CSV file behind its last whole row, or begins it with its header.
template <class Row>
AppendFile opened_csv(const fs::path& path, const Rows<Row>& present) {
  tell_of_torn_row(path, present.whole);
  AppendFile file(path, present.whole);
  if (file.size() == 0) file.append(csv_header<Row>());
  return file;
}

class Directory final : public Sink {
 public:
  Directory(const fs::path& path, DirectoryOptions options)
      : Directory(path, options, Lock(made_directory(path, options.resume)), options.resume) {}

  void write(const Signature& signature) override {
    // Both files or neither: the rows of the two stand in the same order.
    const std::uint64_t before = jsonl_.size();
    jsonl_.append(json_line(signature, options_.spectra));
    try {
      signatures_.append(csv_line(signature));
    } catch (...) {
      jsonl_.truncate(before);
      throw;
    }
    if (events_) events_->write(signature);
  }
  void write(const LlcEstimate& estimate) override {
    llc_.append(csv_line(estimate));
    if (events_) events_->write(estimate);
  }
  void write(const Metric& metric) override {
    metrics_.append(csv_line(metric));
    if (events_) events_->write(metric);
  }

  void describe(const std::string& key, const std::string& json) override {
    auto value = nlohmann::ordered_json::parse(json, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded())
      throw InvalidArgument(fmt::format("describe: the value of '{}' is no JSON: {}", key, json));
    if (key == "schema_version") throw InvalidArgument("describe: schema_version is the log's own key");
    description_[key] = std::move(value);
    write_description();
    if (events_) events_->describe(key, json);
  }

 private:
  Directory(const fs::path& path, DirectoryOptions options, Lock lock, bool resume)
      : lock_(std::move(lock)), path_(path), options_(options) {
    check_directory(path, resume);  // again: another may have been here before the lock was taken
    description_ = opened_description(path);
    write_description();
    const auto in_csv = read_csv<Signature>(path / kSignaturesCsv);
    const auto in_jsonl = read_jsonl(path / kSignaturesJsonl);
    signatures_ = opened_csv(path / kSignaturesCsv, in_csv);
    tell_of_torn_row(path / kSignaturesJsonl, in_jsonl.whole);
    jsonl_ = AppendFile(path / kSignaturesJsonl, in_jsonl.whole);
    level(in_csv.rows, in_jsonl.rows);
    llc_ = opened_csv(path / kLlcCsv, read_csv<LlcEstimate>(path / kLlcCsv));
    metrics_ = opened_csv(path / kMetricsCsv, read_csv<Metric>(path / kMetricsCsv));
    if (options.tensorboard) events_ = tensorboard(path);
  }

  /// A crash can leave a row in one of the two files of signatures only: the other gets it too.
  void level(const std::vector<Signature>& in_csv, const std::vector<Signature>& in_jsonl) {
    for (std::size_t i = in_csv.size(); i < in_jsonl.size(); ++i) signatures_.append(csv_line(in_jsonl[i]));
    for (std::size_t i = in_jsonl.size(); i < in_csv.size(); ++i) jsonl_.append(json_line(in_csv[i], options_.spectra));
  }

  void write_description() {
    replace_file(path_ / kRunJson, description_.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }

  Lock lock_;
  fs::path path_;
  DirectoryOptions options_;
  nlohmann::ordered_json description_;
  AppendFile signatures_, jsonl_, llc_, metrics_;
  SinkPtr events_;  // null: none
};

}  // namespace

SinkPtr directory(const fs::path& path, DirectoryOptions options) { return std::make_shared<Directory>(path, options); }

}  // namespace dds::log
