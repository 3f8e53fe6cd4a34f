// From rows to the log: what a monitor does with a reading once the training thread has let go of it.
#pragma once

#include <cstdint>
#include <dds/log.hpp>
#include <dds/monitor.hpp>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "src/monitor/errors.hpp"
#include "src/monitor/joined_ranks.hpp"
#include "src/rows/reading_rows.hpp"
#include "src/series/follower.hpp"
#include "src/series/row_windows.hpp"

namespace dds {

/// The rows of a step on their way to the log.
struct StepJob {
  ReadingRows rows;
  double seconds = 0;                            ///< spent so far
  std::optional<double> handed_over_after = {};  ///< seconds of the training thread, where a worker does the rest
};

/// For one thread at a time, but for lost(): the worker, if there is one, and others once it has nothing to do.
class Readings {
 public:
  /// All arguments but `sink` must outlive it. Throws InvalidArgument for a null sink on rank 0.
  Readings(const MonitorOptions& options, log::SinkPtr sink, MonitorErrors& errors);

  /// Reads a step: joins its rows over ranks and windows, and follows and logs its signatures. An error in one layer
  /// leaves the others to be read. Throws the first error.
  void read(StepJob job);
  /// In the place of a reading after a rank was lost.
  void pass_on_loss() { ranks_->pass_on_loss(); }
  /// True if a rank was lost, and with it all readings of steps.
  bool lost() const { return ranks_ && ranks_->lost(); }

  /// A checkpoint read at `step`, followed and logged. `pending`: ReadContext::error.
  std::vector<Signature> read(const Problem& problem, ReadOptions options, std::int64_t step,
                              std::exception_ptr pending);

  template <class Row>
  void put(const Row& row) {
    errors_.guard_write([&] { sink_->write(row); });
  }
  /// Throws what the sink throws.
  void describe(const std::string& key, const std::string& json) { sink_->describe(key, json); }

  /// Keeps under "notes" what the user should know though nothing failed.
  void note(const std::string& what);

  const Follower& follower() const { return follower_; }
  /// Begins the series and windows anew, with the fixed ranks of an earlier run.
  void restart(FixedRanks fixed_ranks);

 private:
  void log_step(ReadingRows& rows);
  void log_seconds(StepJob& job);
  /// `spectra`: somebody asked for the spectrum, which the follower needs in any case.
  void follow(Signature& signature, bool spectra);

  const MonitorOptions& options_;
  MonitorErrors& errors_;
  log::SinkPtr sink_;
  std::optional<JoinedRanks> ranks_;
  Follower follower_;
  RowWindows windows_;
  std::vector<std::string> notes_;
};

}  // namespace dds
