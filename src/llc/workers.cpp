#include "src/llc/workers.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <dds/suspend_recording.hpp>
#include <exception>
#include <limits>
#include <thread>
#include <utility>

namespace dds {

SingleThreaded::SingleThreaded() : before_(at::get_num_threads()) { at::set_num_threads(1); }

SingleThreaded::~SingleThreaded() { at::set_num_threads(before_); }

Watch::Watch(std::optional<double> max_seconds, std::function<bool()> cancelled, std::function<void(double)> progress)
    : max_seconds_(max_seconds), cancelled_(std::move(cancelled)), progress_(std::move(progress)) {}

double Watch::left() const {
  return max_seconds_ ? std::max(0.0, *max_seconds_ - reserved_ - seconds()) : std::numeric_limits<double>::infinity();
}

void Watch::reserve(double seconds) {
  if (max_seconds_) reserved_ = std::min(seconds, *max_seconds_ / 2);
}

bool Watch::over() const { return aborted_ || was_cancelled_ || left() <= 0; }

bool Watch::tick() {
  if (cancelled_ && cancelled_()) was_cancelled_ = true;
  if (over()) return true;
  const std::int64_t done = ++done_, expected = expected_;
  if (progress_ && expected > 0 && done % std::max<std::int64_t>(expected / 100, 1) == 0) {
    report(static_cast<double>(done) / static_cast<double>(expected));
  }
  return false;
}

void Watch::report(double share) {
  if (!progress_) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  reported_ = std::max(reported_, std::min(1.0, share));
  progress_(reported_);
}

void run_on(const std::vector<Replica>& replicas, std::size_t count, Watch& watch,
            const std::function<void(std::size_t, const Replica&)>& work) {
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr error;
  const auto serve = [&](const Replica& replica) {
    try {
      for (auto i = next++; i < count; i = next++) work(i, replica);
    } catch (...) {
      watch.abort();
      next = count;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::jthread> threads;
  for (std::size_t r = 1; r < std::min(replicas.size(), count); ++r) {
    threads.emplace_back([&, r] {
      at::set_num_threads(1);
      const SuspendRecording unseen;
      serve(replicas[r]);
    });
  }
  serve(replicas[0]);
  threads.clear();  // joins
  if (error) std::rethrow_exception(error);
}

}  // namespace dds
