// Where readings go. A sink takes them one by one:
//
//   directory    writes a run to disk; <dds/run.hpp> reads it back, <dds/schema.hpp> has its columns
//   tensorboard  writes what TensorBoard reads
//   Memory       keeps them
//   callback     hands them to functions
//   tee          passes them on to several sinks
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
  /// Append to a run that is there. False: a directory that holds anything is refused.
  /// A row that a crash cut short is removed first. A row that is there already is not written again: a training that
  /// goes on from its last checkpoint comes by steps that were logged before the crash. Rows are compared without their
  /// times, and without `born` and `revived`.
  bool resume = false;
  /// Also write every singular value of a signature that carries its spectrum: into spectra.jsonl, and as histograms.
  bool spectra = true;
  /// Also write a TensorBoard event file beside the others, as `tensorboard` below does. Of a run that is resumed, rows
  /// that have no event yet get theirs.
  bool tensorboard = false;
};

/// Writes signatures.csv, spectra.jsonl, llc.csv, metrics.csv, run.json and where asked an event file into `path`.
///
/// - Each row is one write as it comes. It survives a kill of the process. (A power cut can take what the system had
///   not brought to the disk yet.)
/// - The directory is locked against a second writer until this process ends, in whatever way. Children that it forks
///   do not have the lock. A file system without locks gets a warning.
/// - A row that cannot be written, since the disk is full, waits: at most 16 MiB of them a file. `write` then throws
///   IoError. The next write that succeeds brings the waiting rows along; the end of the sink tries to. Rows beyond
///   16 MiB are counted as `lost_rows` in run.json.
/// - If the directory, or a file of it, is deleted under its run, it is put back with all rows so far, unless another
///   run has taken its place.
///
/// Throws IoError if the directory cannot be made or written, holds other files, or is being written by another run.
SinkPtr directory(const std::filesystem::path& path, DirectoryOptions options = {});

struct TensorBoardOptions {
  /// Seconds since 1970 that a row is marked with; empty: the time at which it comes.
  std::function<double()> wall_time = nullptr;
};

/// Writes an event file for TensorBoard into `path`, which may hold others: `tensorboard --logdir` shows all of a
/// folder as one run, folders as several. Each row is one write as it comes, and waits where it cannot be written, as
/// above. A resumed run makes a file of its own, whose name sorts behind the others. The time of a row is never before
/// that of the last, whatever the clock does. Tags:
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
/// TensorBoard's scalars are fp32, hence the logarithms of what leaves their range. A number that does not exist or is
/// not finite has no event. Throws IoError if the file cannot be made or written.
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

/// A function for each kind of row. An empty one drops its rows.
struct Callbacks {
  std::function<void(const Signature&)> signature = nullptr;
  std::function<void(const LlcEstimate&)> estimate = nullptr;
  std::function<void(const Metric&)> metric = nullptr;
};
/// Calls a function with every row of its kind. Throws InvalidArgument if all are empty.
SinkPtr callback(Callbacks functions);
/// The same for signatures alone.
SinkPtr callback(std::function<void(const Signature&)> signature);

/// Writes to each of `sinks` in turn.
SinkPtr tee(std::vector<SinkPtr> sinks);

}  // namespace log
}  // namespace dds
