#include "src/monitor/reading_thread.hpp"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <dds/suspend_recording.hpp>
#include <optional>
#include <utility>

namespace dds {

ReadingThread::ReadingThread(std::size_t capacity) : capacity_(capacity), thread_([this] { serve(); }) {}

ReadingThread::~ReadingThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ReadingThread::post(std::function<void()> job) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return counting_ < capacity_; });
  jobs_.push_back({std::move(job), /*counts=*/true});
  ++counting_;
  lock.unlock();
  changed_.notify_all();
}

void ReadingThread::post_beside(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(job), /*counts=*/false});
  }
  changed_.notify_all();
}

bool ReadingThread::full() const {
  const std::lock_guard lock(mutex_);
  return counting_ >= capacity_;
}

void ReadingThread::drain() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return jobs_.empty(); });
}

void ReadingThread::serve() {
  const SuspendRecording unseen;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::function<void()> work = std::move(jobs_.front().work);  // its place is kept: it counts until it is done
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
    if (jobs_.front().counts) --counting_;
    jobs_.pop_front();
    changed_.notify_all();
  }
}

c10::Stream SideStreams::of(at::Device device) {
  const auto known = std::find_if(streams_.begin(), streams_.end(),
                                  [&](const c10::Stream& stream) { return stream.device() == device; });
  if (known != streams_.end()) return *known;
  return streams_.emplace_back(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device));
}

StreamHandover::StreamHandover(const std::vector<at::Tensor>& tensors, SideStreams& side) {
  for (const at::Tensor& tensor : tensors) {
    const at::Device device = tensor.device();
    if (device.is_cpu()) continue;
    const auto known = std::find_if(devices_.begin(), devices_.end(),
                                    [&](const Device& other) { return other.side.device() == device; });
    if (known == devices_.end()) {
      const c10::impl::VirtualGuardImpl guard(device.type());
      c10::Event event(device.type());
      event.record(guard.getStream(device));
      devices_.push_back({std::move(event), side.of(device)});
      tensor.record_stream(devices_.back().side);
    } else {
      tensor.record_stream(known->side);
    }
  }
}

void StreamHandover::run(const std::function<void()>& work) {
  std::vector<c10::Stream> streams;
  for (const Device& device : devices_) {
    device.event.block(device.side);
    streams.push_back(device.side);
  }
  const c10::MultiStreamGuard guard(streams);
  const auto wait = [&] {
    for (const c10::Stream& stream : streams) stream.synchronize();
  };
  try {
    work();
  } catch (...) {
    wait();  // what the work held is freed on the way out
    throw;
  }
  wait();
}

}  // namespace dds
