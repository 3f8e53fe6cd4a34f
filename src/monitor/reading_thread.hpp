// A thread that works off jobs in order, behind the training thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace dds {

/// Runs jobs one after another on one thread of its own, which recorders do not see. LibTorch works there with as many
/// threads as any new thread of the process gets: one, if the training called at::set_num_threads(1).
class ReadingThread {
 public:
  /// At most `capacity` jobs of post() wait or run at a time.
  explicit ReadingThread(std::size_t capacity);
  /// Works off what waits.
  ~ReadingThread();

  /// Adds a job, which must not throw; waits while there are as many as the capacity allows.
  void post(std::function<void()> job);
  /// Adds a small job beyond the capacity, in the same order, and never waits.
  void post_beside(std::function<void()> job);
  /// True if post would wait.
  bool full() const;
  /// Waits until nothing is left to do.
  void drain() const;

 private:
  struct Job {
    std::function<void()> work;
    bool counts;  ///< towards the capacity
  };

  void serve();

  std::size_t capacity_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Job> jobs_;      ///< the first is being run
  std::size_t counting_ = 0;  ///< of jobs_
  bool stopping_ = false;
  std::thread thread_;
};

/// A stream of its own on each device, for all that one thread does there: so what it keeps from one job to the next is
/// never used on two streams.
class SideStreams {
 public:
  c10::Stream of(at::Device device);

 private:
  std::vector<c10::Stream> streams_;
};

/// Hands tensors of an accelerator over to another thread, which works on streams of its own: what was queued before
/// the handover is done before what the other thread queues. On the CPU there is nothing to do.
class StreamHandover {
 public:
  /// On the thread that made the tensors.
  StreamHandover(const std::vector<at::Tensor>& tensors, SideStreams& side);
  StreamHandover(StreamHandover&&) = default;

  /// Runs `work` on side streams, on the thread that takes over; returns when they are done.
  void run(const std::function<void()>& work);

 private:
  struct Device {
    c10::Event event;
    c10::Stream side;
  };
  std::vector<Device> devices_;
};

}  // namespace dds
