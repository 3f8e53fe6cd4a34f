// Sinks: where readings go, one by one.
//
//   directory    writes a run to disk; <dds/run.hpp> reads it back; <dds/schema.hpp> lists its columns
//   tensorboard  writes an event file for TensorBoard
//   Memory       keeps them in memory
//   callback     calls functions with them
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

/// A scalar of the user's own, such as "train_loss" or "test_accuracy".
struct Metric {
  std::int64_t step = 0;
  std::string name;
  double value = 0;
};

namespace log {

/// Takes readings.
/// Threads: calls come from one thread at a time.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(const Signature& signature) = 0;
  virtual void write(const LlcEstimate& estimate) = 0;
  virtual void write(const Metric& metric) = 0;
  /// A fact about the run as a whole, kept by key: options, versions, seeds.
  /// Valid input: `json` is any JSON value.
  virtual void describe(const std::string& key, const std::string& json) = 0;
};
using SinkPtr = std::shared_ptr<Sink>;

struct DirectoryOptions {
  /// True: append to the run in the directory, if there is one. False: refuse a directory that holds anything.
  /// - A row that a crash cut short is removed first.
  /// - A row that is there already is not written again. A training that goes on from its last checkpoint repeats steps
  ///   that were logged before the crash.
  /// - Rows are compared without times (`seconds`, the value of a metric named *_seconds), `born` and `revived`.
  /// - A Monitor of a model that the run did not have is refused, with InvalidArgument.
  bool resume = false;
  /// Also write every singular value of a signature that has its spectrum: to spectra.jsonl, and to TensorBoard as
  /// histograms.
  bool spectra = true;
  /// Also write a TensorBoard event file beside the others, as `tensorboard` below does. In a resumed run, earlier rows
  /// without an event get theirs.
  bool tensorboard = false;
};

/// Writes signatures.csv, spectra.jsonl, llc.csv, metrics.csv and run.json into `path`; on request, an event file.
///
/// - Each row is written at once, by one write. It survives a kill of the process. (A power cut can lose what
///   the system had not yet brought to the disk.)
/// - The directory is locked against a second writer until the sink or the process ends. Child processes do not
///   hold the lock. On a file system without locks there is a warning instead.
/// - If a row cannot be written, as on a full disk, `write` throws IoError and the row waits in memory. The next write
///   that succeeds, or else the end of the sink, writes the waiting rows. At most 16 MiB of rows wait per file. Rows
///   beyond that are lost, and counted as `lost_rows` in run.json.
/// - If the directory or a file in it is deleted during the run, it is put back with all rows so far, unless
///   another run has taken its place.
///
/// Throws IoError if the directory cannot be made or written, holds other files, holds a run of another schema version,
/// or is being written by another run.
SinkPtr directory(const std::filesystem::path& path, DirectoryOptions options = {});

struct TensorBoardOptions {
  /// Called for the time of each row, in seconds since 1970. Empty: the system's clock.
  std::function<double()> wall_time = nullptr;
};

/// Writes an event file for TensorBoard into `path`.
/// - `path` may hold other event files. `tensorboard --logdir` shows all files of one folder as one run, and several
///   folders as several runs.
/// - Each row is written at once, and waits if it cannot be written, as for `directory`.
/// - A resumed run makes a new file, whose name sorts after the others.
/// - The time of a row is never before that of the previous one, even if the clock goes back.
///
/// Tags:
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
/// TensorBoard's scalars are fp32, so numbers that can leave its range are written as logarithms.
/// A number that does not exist or is not finite has no event.
/// Throws IoError if the file cannot be made or written.
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

/// A function for each kind of row. If it is empty, such rows are dropped.
struct Callbacks {
  std::function<void(const Signature&)> signature = nullptr;
  std::function<void(const LlcEstimate&)> estimate = nullptr;
  std::function<void(const Metric&)> metric = nullptr;
};
/// Calls a function with every row of its kind. `describe` is ignored.
/// Throws InvalidArgument if all functions are empty.
SinkPtr callback(Callbacks functions);
/// The same, for signatures alone.
SinkPtr callback(std::function<void(const Signature&)> signature);

/// Writes to each of `sinks` in turn. If some throw, the others still get the row; then the first exception
/// is rethrown.
/// Throws InvalidArgument if a sink is null.
SinkPtr tee(std::vector<SinkPtr> sinks);

}  // namespace log
}  // namespace dds
