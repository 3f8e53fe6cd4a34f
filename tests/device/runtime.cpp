#include "tests/device/runtime.hpp"

#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

namespace dds::test::strict {
namespace {

std::mutex guards;  // what follows
std::vector<std::string> found;
Counts of_default, of_others;

Counts& counts_of(StreamKey stream) { return stream.second == 0 ? of_default : of_others; }

struct Thread {
  c10::DeviceIndex device = 0;
  std::array<c10::StreamId, kDevices> streams{};  // 0: the default one
};
Thread& thread() {
  thread_local Thread one;
  return one;
}

c10::Stream stream_of(c10::DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, {c10::DeviceType::PrivateUse1, device}, id);
}

}  // namespace

Order& order() {
  static Order* const all = new Order;
  return *all;
}

c10::DeviceIndex current_device() { return thread().device; }
void set_current_device(c10::DeviceIndex index) { thread().device = index; }
c10::Stream current_stream(c10::DeviceIndex device) { return stream_of(device, thread().streams.at(device)); }
void set_current_stream(const c10::Stream& stream) { thread().streams.at(stream.device_index()) = stream.id(); }

c10::Stream next_stream(c10::DeviceIndex device) {
  constexpr c10::StreamId kPool = 8;
  static std::atomic<c10::StreamId> next{0};
  return stream_of(device, 1 + next++ % kPool);
}

void count(StreamKey stream, std::int64_t Counts::*what) {
  const std::lock_guard lock(guards);
  ++(counts_of(stream).*what);
}

Counts counts() {
  const std::lock_guard lock(guards);
  return of_default;
}

Counts side_counts() {
  const std::lock_guard lock(guards);
  return of_others;
}

void reset_counts() {
  const std::lock_guard lock(guards);
  of_default = of_others = {};
}

void wait_for(const c10::Stream& stream, const std::string& what) {
  order().wait(key_of(stream));
  count_wait(key_of(stream), what);
}

void count_wait(StreamKey stream, const std::string& what) {
  const std::lock_guard lock(guards);
  Counts& counts = counts_of(stream);
  ++counts.synchronisations;
  ++counts.waits[what];
}

void report(const std::string& violation) {
  constexpr std::size_t kMost = 100;
  if (violation.empty()) return;
  const std::lock_guard lock(guards);
  if (found.size() < kMost) found.push_back(violation);
}

std::vector<std::string> violations() {
  const std::lock_guard lock(guards);
  return std::exchange(found, {});
}

}  // namespace dds::test::strict
