#include "tests/device/order.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dds::test::strict {
namespace {

std::string name_of(StreamKey stream) { return fmt::format("stream {} of device {}", stream.second, stream.first); }

}  // namespace

void Clock::join(const Clock& other) {
  for (const auto& [stream, number] : other.done_) done_[stream] = std::max(done_[stream], number);
}

bool Clock::includes(const Clock& other) const {
  return std::all_of(other.done_.begin(), other.done_.end(),
                     [&](const auto& done) { return done.second <= (*this)[done.first]; });
}

std::uint64_t Order::launch(StreamKey stream) {
  const std::lock_guard lock(mutex_);
  Clock& clock = streams_[stream];
  clock.join(host_);
  return clock.advance(stream);
}

bool Order::is_before(const Access& access, StreamKey stream) {
  return access.number == 0 || access.stream == stream || access.number <= streams_[stream][access.stream];
}

std::string Order::use(History& block, bool writes, const Access& access) {
  const std::lock_guard lock(mutex_);
  std::string complaint;
  const auto check = [&](const Access& earlier, const char* did) {
    if (complaint.empty() && !is_before(earlier, access.stream)) {
      complaint = fmt::format("{} on {} is not ordered after {}, which {} the same memory on {}", access.what,
                              name_of(access.stream), earlier.what, did, name_of(earlier.stream));
    }
  };
  check(block.write, "wrote");
  if (!writes) {
    block.reads[access.stream] = access;
    return complaint;
  }
  for (const auto& [stream, read] : block.reads) check(read, "read");
  block.reads.clear();
  block.write = access;
  return complaint;
}

std::string Order::free(const History& block) {
  const std::lock_guard lock(mutex_);
  std::string complaint;
  const auto check = [&](const Access& earlier) {
    if (!complaint.empty() || block.recorded.contains(earlier.stream) || is_before(earlier, block.home)) return;
    if (earlier.number <= host_[earlier.stream]) return;
    complaint = fmt::format("memory of {} is freed while {} on {} may still use it: neither record_stream nor an order",
                            name_of(block.home), earlier.what, name_of(earlier.stream));
  };
  check(block.write);
  for (const auto& [stream, read] : block.reads) check(read);
  return complaint;
}

Clock Order::record(StreamKey stream) {
  const std::lock_guard lock(mutex_);
  return streams_[stream];
}

void Order::block(const Clock& event, StreamKey stream) {
  const std::lock_guard lock(mutex_);
  streams_[stream].join(event);
}

void Order::wait(const Clock& event) {
  const std::lock_guard lock(mutex_);
  host_.join(event);
}

void Order::wait(StreamKey stream) {
  const std::lock_guard lock(mutex_);
  host_.join(streams_[stream]);
}

bool Order::is_done(const Clock& event) {
  const std::lock_guard lock(mutex_);
  return host_.includes(event);
}

}  // namespace dds::test::strict
