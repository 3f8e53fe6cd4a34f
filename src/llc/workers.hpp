// Runs chains on replicas of a model, as many at a time as there are replicas.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "src/base/stopwatch.hpp"
#include "src/model/replica.hpp"

namespace dds {

/// Every LibTorch operator of this and of new threads runs on one thread while it lives: chains are the parallelism.
class SingleThreaded {
 public:
  SingleThreaded();
  ~SingleThreaded();
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

/// Counts steps over all threads, reports progress, and says when to stop.
class Watch {
 public:
  /// `max_seconds` empty: no limit. `cancelled` and `progress` may be null.
  Watch(std::optional<double> max_seconds, std::function<bool()> cancelled, std::function<void(double)> progress);

  /// So many steps are still to come. Progress is the share of these and of those already done.
  void expect(std::int64_t steps) { expected_ = done_ + steps; }
  /// Call it before each step. True: do not take the step.
  bool tick();
  void abort() { aborted_ = true; }
  void cancel() { was_cancelled_ = true; }
  /// Keeps so many of the seconds for what follows the chains, but no more than half: it is over earlier by them.
  void reserve(double seconds);
  /// The chains have ended: what was kept may be spent.
  void release() { reserved_ = 0; }
  /// Seconds until it is over by itself; infinite without a limit.
  double left() const;
  /// Ends so many seconds from now, in place of any earlier limit. Not to be called while chains run.
  void end_in(double seconds_left) { max_seconds_ = seconds() + seconds_left; }
  bool over() const;
  bool cancelled() const { return was_cancelled_; }
  /// All is done.
  void finish() { report(1.0); }
  double seconds() const { return stopwatch_.seconds(); }

 private:
  void report(double share);

  Stopwatch stopwatch_;
  std::optional<double> max_seconds_;
  double reserved_ = 0;
  std::function<bool()> cancelled_;
  std::function<void(double)> progress_;
  std::mutex mutex_;
  double reported_ = 0;  // guarded by mutex_
  std::atomic<std::int64_t> done_ = 0;
  std::atomic<std::int64_t> expected_ = 0;
  std::atomic<bool> aborted_ = false;
  std::atomic<bool> was_cancelled_ = false;
};

/// Calls work(i, replica) for i = 0 .. count-1, each replica in one thread at a time. The first exception ends the work
/// and is thrown again here.
void run_on(const std::vector<Replica>& replicas, std::size_t count, Watch& watch,
            const std::function<void(std::size_t, const Replica&)>& work);

}  // namespace dds
