#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/schema.hpp>
#include <functional>
#include <unordered_set>

#include "src/base/check.hpp"
#include "src/base/logger.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/log/record.hpp"
#include "src/log/run_files.hpp"
#include "src/log/spectra.hpp"
#include "src/log/tensorboard.hpp"

namespace dds::log {
namespace {

namespace fs = std::filesystem;

/// Refuses a directory that this run may not write into; true if nothing is in it.
bool check_directory(const fs::path& path, bool resume) {
  const std::string entry = first_entry(path);
  if (entry.empty()) return true;
  if (!resume) {
    throw IoError(
        fmt::format("{} is not empty (it holds {}): choose another directory, or set DirectoryOptions::resume to "
                    "append to the run in it",
                    path.string(), entry));
  }
  const std::int64_t version = version_of(read_description(path));  // throws if what is there is no run
  if (version != schema::kVersion) {
    throw IoError(fmt::format("{} is a run of schema version {}, and this library writes {}: choose another directory",
                              path.string(), version, schema::kVersion));
  }
  return false;
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
  if (is_there(path / kRunJson)) {
    description = read_description(path);
    description.erase("lost_rank");  // that loss ended with the training that met it
  }
  description["schema_version"] = schema::kVersion;
  description["dds"] = DDS_VERSION;
  description["libtorch"] = TORCH_VERSION;
  return description;
}

/// The texts in the list under `key`; none if there is no such list.
std::vector<std::string> texts_of(const nlohmann::ordered_json& description, std::string_view key) {
  std::vector<std::string> texts;
  const auto list = description.find(key);
  if (list == description.end() || !list->is_array()) return texts;
  for (const nlohmann::ordered_json& entry : *list) {
    if (entry.is_string()) texts.push_back(entry.get<std::string>());
  }
  return texts;
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

/// What two rows have in common that say the same: all but how long things took, and what a tracker that began anew
/// cannot know.
std::string said_by(Signature signature) {
  signature.seconds = 0;
  signature.born = signature.revived = std::nullopt;
  return csv_line(signature);
}
std::string said_by(LlcEstimate estimate) {
  estimate.seconds = 0;
  return csv_line(estimate);
}
std::string said_by(Metric metric) {
  if (metric.name.ends_with("_seconds")) metric.value = 0;
  return csv_line(metric);
}

/// The rows that a run held when it was opened. Training that goes on from a checkpoint comes by steps again that were
/// logged before the crash.
class Earlier {
 public:
  template <class Row>
  void add(const std::vector<Row>& rows) {
    for (const Row& row : rows) hashes_.insert(hash_of(row));
  }
  /// True, once for each, if the row was there.
  template <class Row>
  bool take(const Row& row) {
    if (hashes_.empty()) return false;
    const auto found = hashes_.find(hash_of(row));
    if (found == hashes_.end()) return false;
    hashes_.erase(found);
    return true;
  }

 private:
  template <class Row>
  static std::size_t hash_of(const Row& row) {
    return std::hash<std::string>()(said_by(row));
  }
  std::unordered_multiset<std::size_t> hashes_;
};

class Directory final : public Sink {
 public:
  Directory(const fs::path& path, DirectoryOptions options)
      : Directory(path, options, Lock(made_directory(path, options.resume)), options.resume) {}

  void write(const Signature& signature) override {
    if (!options_.spectra && !signature.spectrum.empty()) {
      Signature bare = signature;
      bare.spectrum.clear();
      return write(bare);
    }
    std::vector<Line> lines;
    if (std::string spectrum = spectrum_line(signature); !spectrum.empty())
      lines.push_back({&spectra_, std::move(spectrum)});
    lines.push_back({&signatures_, csv_line(signature)});
    write_row(signature, std::move(lines));
  }
  void write(const LlcEstimate& estimate) override { write_row(estimate, {{&llc_, csv_line(estimate)}}); }
  void write(const Metric& metric) override { write_row(metric, {{&metrics_, csv_line(metric)}}); }

  void describe(const std::string& key, const std::string& json) override {
    nlohmann::ordered_json value = described_value(key, json);
    check(key != "schema_version" && key != kModels, "describe", "key", key, "another: this one is the log's own");
    if (key == kMonitor) take_model(value);
    description_[key] = std::move(value);
    description_due_ = true;
    write_what_waits();
    if (events_) events_->describe(key, json);
  }

 private:
  Directory(const fs::path& path, DirectoryOptions options, Lock lock, bool resume)
      : lock_(std::move(lock)), path_(path), options_(options) {
    const bool is_new = check_directory(path, resume);  // again: another may have been here before the lock
    try {
      open();
    } catch (...) {
      if (is_new) clear();
      throw;
    }
  }

  void open() {
    const fs::path& path = path_;
    remove_left_overs(path, {kRunJson, kSignaturesCsv, kSpectraJsonl, kLlcCsv, kMetricsCsv});
    description_ = opened_description(path);
    if (const auto lost = description_.find("lost_rows"); lost != description_.end() && lost->is_number_integer())
      lost_rows_ = lost->get<std::int64_t>();
    write_description();
    auto signatures = read_csv<Signature>(path / kSignaturesCsv);
    const std::size_t spectra = take_spectra(path / kSpectraJsonl, signatures.rows);
    const auto estimates = read_csv<LlcEstimate>(path / kLlcCsv);
    const auto metrics = read_csv<Metric>(path / kMetricsCsv);
    signatures_ = opened_csv(path / kSignaturesCsv, signatures);
    if (options_.spectra || is_there(path / kSpectraJsonl)) {
      tell_of_torn_row(path / kSpectraJsonl, spectra);
      spectra_ = AppendFile(path / kSpectraJsonl, spectra);
    }
    llc_ = opened_csv(path / kLlcCsv, estimates);
    metrics_ = opened_csv(path / kMetricsCsv, metrics);

    if (options_.tensorboard) {  // a crash can leave a row without its event
      events_ = resumed_tensorboard(path);
      for (const Signature& signature : signatures.rows) events_->write(signature);
      for (const LlcEstimate& estimate : estimates.rows) events_->write(estimate);
      for (const Metric& metric : metrics.rows) events_->write(metric);
    }
    models_ = texts_of(description_, kModels);
    if (!signatures.rows.empty()) earlier_models_ = models_;
    earlier_.add(signatures.rows);
    earlier_.add(estimates.rows);
    earlier_.add(metrics.rows);
  }

  /// Leaves the folder as it was found, but for the lock: half a run could neither be begun anew nor gone on with.
  void clear() noexcept {
    try {
      for (AppendFile* file : {&signatures_, &spectra_, &llc_, &metrics_}) *file = AppendFile();
      for (const fs::path& entry : entries_of(path_)) {
        std::error_code error;
        if (entry.filename() != ".lock") fs::remove(entry, error);
      }
    } catch (const std::exception&) {  // what cannot be read stays as it is
    }
  }

  /// A training may log several models. One that resumes their run may log no others: rows of two networks under one
  /// name would be taken for a series.
  void take_model(const nlohmann::ordered_json& monitor) {
    const auto entry = monitor.find(kParameters);
    if (entry == monitor.end() || !entry->is_string() || *entry == "") return;
    const auto model = entry->get<std::string>();
    const auto is_among = [&](const std::vector<std::string>& models) {
      return std::find(models.begin(), models.end(), model) != models.end();
    };
    check(earlier_models_.empty() || is_among(earlier_models_), "log::directory", "the model", model,
          fmt::format("{}, as in the run in {}: choose another directory for another model",
                      fmt::join(earlier_models_, " or "), path_.string()));
    if (!is_among(models_)) models_.push_back(model);
    description_[std::string(kModels)] = models_;
  }

  struct Line {
    AppendFile* file;
    std::string text;
  };

  /// Writes a row into its files, behind those that wait.
  template <class Row>
  void write_row(const Row& row, std::vector<Line> lines) {
    if (earlier_.take(row)) return;
    const auto room = [&] {
      return std::all_of(lines.begin(), lines.end(),
                         [](const Line& line) { return line.file->has_room(line.text.size()); });
    };
    std::exception_ptr error;
    const auto try_to_write = [&] {
      error = nullptr;
      try {
        write_what_waits();
      } catch (...) {
        error = std::current_exception();
      }
    };
    if (!room()) try_to_write();
    if (room()) {
      for (Line& line : lines) line.file->add(std::move(line.text));
    } else {
      description_["lost_rows"] = ++lost_rows_;
      description_due_ = true;
    }
    try_to_write();
    if (events_) events_->write(row);
    if (error) std::rethrow_exception(error);
  }

  /// Writes as much as can be written; then throws the first error there was.
  void write_what_waits() {
    put_back();
    std::exception_ptr first;
    const auto attempt = [&](const auto& write) {
      try {
        write();
      } catch (...) {
        if (!first) first = std::current_exception();
      }
    };
    if (description_due_) attempt([&] { write_description(); });  // before the rows, which are nothing without it
    attempt([&] {                                                 // a row only after its spectrum
      spectra_.write();
      signatures_.write();
    });
    for (AppendFile* file : {&llc_, &metrics_}) attempt([&] { file->write(); });
    if (first) std::rethrow_exception(first);
  }

  /// Puts back what was deleted under the run: the folder, the lock, run.json. The files of rows do so themselves.
  void put_back() {
    std::error_code error;
    if (lock_.held()) {
      const bool missing = !fs::exists(path_ / kRunJson, error) && !error;
      if (missing && fs::exists(path_ / ".lock", error)) description_due_ = true;  // or the folder has another name now
      return;
    }
    fs::create_directories(path_, error);
    if (error) throw IoError(fmt::format("{} was deleted, and cannot be made: {}", path_.string(), error.message()));
    Lock lock(path_);
    const bool ours = signatures_.in_place() || spectra_.in_place() || llc_.in_place() || metrics_.in_place();
    if (!ours && !first_entry(path_).empty())
      throw IoError(fmt::format("{} was deleted under its run, and holds others' files by now", path_.string()));
    lock_ = std::move(lock);
    description_due_ = true;
    tell(Level::Warning, ours ? fmt::format("the lock of {} was gone, and is taken again", path_.string())
                              : fmt::format("{} was deleted under its run, and is put back", path_.string()));
  }

  void write_description() {
    replace_file(path_ / kRunJson, json_text(description_, 2) + "\n");
    description_due_ = false;
  }

  Lock lock_;
  fs::path path_;
  DirectoryOptions options_;
  nlohmann::ordered_json description_;
  std::vector<std::string> models_, earlier_models_;  ///< of the run; of the rows that were there when it was opened
  bool description_due_ = false;                      ///< run.json does not say all of it
  std::int64_t lost_rows_ = 0;
  AppendFile signatures_, spectra_, llc_, metrics_;
  SinkPtr events_;  ///< null: none
  Earlier earlier_;
};

}  // namespace

SinkPtr directory(const fs::path& path, DirectoryOptions options) { return std::make_shared<Directory>(path, options); }

}  // namespace dds::log
