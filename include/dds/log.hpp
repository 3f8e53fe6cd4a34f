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
  /// Append to a run that is there: a row that a crash cut short is removed first. Without it a directory that holds
  /// anything is refused.
  bool resume = false;
  /// Also write every singular value of a signature that carries its spectrum into signatures.jsonl.
  bool spectra = true;
  /// Also write a TensorBoard event file beside the others, as `tensorboard` below does.
  bool tensorboard = false;
};

/// Writes signatures.csv, signatures.jsonl, llc.csv, metrics.csv, run.json and where asked an event file into `path`,
/// each row in one write as it comes, so that it survives a kill of the process. The directory is locked against a
/// second writer. Throws IoError if it cannot be made or written, holds other files, or is being written by another
/// run.
SinkPtr directory(const std::filesystem::path& path, DirectoryOptions options = {});

struct TensorBoardOptions {
  /// Seconds since 1970 that a row is marked with; empty: the time at which it comes.
  std::function<double()> wall_time = nullptr;
};

/// Writes an event file for TensorBoard into `path`, which may hold others: `tensorboard --logdir` shows all of a
/// folder as one run, folders as several. Each row is one write as it comes, so that it survives a kill of the process;
/// a resumed run makes a file of its own. Tags:
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
