// Where readings go. A sink takes them one by one; `directory` is the one that writes a run to disk, `tensorboard`
// writes what TensorBoard reads, `memory` and `callback` hand them to code, and `tee` joins several. The columns of the
// files are the schema in <dds/schema.hpp>.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <dds/llc.hpp>
#include <dds/signature.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace DDS_EXPORT dds {

/// A scalar of the user's own beside the readings: "train_loss", "test_accuracy".
struct Metric {
  std::int64_t step = 0;
  std::string name;
  double value = 0;
};

namespace log {

/// Takes readings. Calls come from one thread at a time.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(const Signature& signature) = 0;
  virtual void write(const LlcEstimate& estimate) = 0;
  virtual void write(const Metric& metric) = 0;
  /// Something worth knowing about the run as a whole, kept by key: options, versions, seeds. `json` is any JSON value.
  virtual void describe(const std::string& key, const std::string& json) = 0;
};
using SinkPtr = std::shared_ptr<Sink>;

struct DirectoryOptions {
  /// Append to a run that is there: a row that a crash cut short is removed first. A row that says what one of those
  /// found there says is not written again, so that steps between the last checkpoint and the crash, through which the
  /// training goes twice, do not stand twice; times do not count in this, nor do `born` and `revived`. Without it a
  /// directory that holds anything is refused.
  bool resume = false;
  /// Also write every singular value of a signature that carries its spectrum, into signatures.jsonl and as histograms.
  bool spectra = true;
  /// Also write a TensorBoard event file beside the others, as `tensorboard` below does. Of a run that is resumed, rows
  /// that have no event yet get theirs.
  bool tensorboard = false;
};

/// Writes signatures.csv, signatures.jsonl, llc.csv, metrics.csv, run.json and where asked an event file into `path`,
/// each row in one write as it comes, so that it survives a kill of the process. (A power cut can take what the system
/// had not brought to the disk yet.) The directory is locked against a second writer, until its process ends in
/// whatever way; children that it forks do not have the lock. A file system without locks gets a warning. Throws
/// IoError if the directory cannot be made or written, holds other files, or is being written by another run.
///
/// A row that cannot be written (the disk is full) is kept, up to 16 MiB of them a file: `write` throws IoError, and
/// the next that can be written brings it along, as the sink's end tries to. Rows beyond that are counted as
/// `lost_rows` in run.json. If the directory, or a file of it, is deleted under its run, it is put back with all rows
/// so far, unless another run has taken its place.
SinkPtr directory(const std::filesystem::path& path, DirectoryOptions options = {});

struct TensorBoardOptions {
  /// Seconds since 1970 that a row is marked with; empty: the time at which it comes.
  std::function<double()> wall_time = nullptr;
};

/// Writes an event file for TensorBoard into `path`, which may hold others: `tensorboard --logdir` shows all of a
/// folder as one run, folders as several. Each row is one write as it comes, so that it survives a kill of the process,
/// and waits where it cannot be written, as above; a resumed run makes a file of its own, whose name sorts behind the
/// others. The time of a row is never before that of the last, whatever the clock does. Tags:
///
///   LAYER/SIDE.SOURCE[.FISHER_KIND]/NAME, such as fc1/fisher.read.exact/log10_lambda_min_plus
///     NAME: log10_sigma_max, log10_sigma_min, log10_floor, log10_condition, log10_lambda_min_plus, log10_trace,
///     logdet_plus, logdet_fixed_rank, rank, dead_directions, born, revived, at_floor (0 or 1), effective_rank,
///     stable_rank; and log10_sigma, a histogram of the spectrum without its zeros, where the signature carries one
///   llc/plain/NAME, llc/tilted/NAME
///     NAME: lambda, standard_error, low, high, converged (0 or 1), log10_gamma
///   the name of a Metric
///   run/KEY: text that was given to `describe`
///
/// TensorBoard's scalars are fp32, hence the logarithms of what leaves their range. What does not exist or is not
/// finite has no event, nor has a signature without numbers. Throws IoError if it cannot be made or written.
SinkPtr tensorboard(const std::filesystem::path& path, TensorBoardOptions options = {});

/// Keeps everything in memory.
class Memory : public Sink {
 public:
  void write(const Signature& signature) override { signatures.push_back(signature); }
  void write(const LlcEstimate& estimate) override { estimates.push_back(estimate); }
  void write(const Metric& metric) override { metrics.push_back(metric); }
  void describe(const std::string& key, const std::string& json) override { description[key] = json; }

  std::vector<Signature> signatures;
  std::vector<LlcEstimate> estimates;
  std::vector<Metric> metrics;
  std::map<std::string, std::string> description;
};

/// Calls `function` with every signature, and drops the rest.
SinkPtr callback(std::function<void(const Signature&)> function);

/// Writes to each of `sinks` in turn.
SinkPtr tee(std::vector<SinkPtr> sinks);

}  // namespace log
}  // namespace dds
