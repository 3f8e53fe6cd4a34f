// What the backend is doing: the current device and streams of each thread, its counts, and what went wrong.
#pragma once

#include <c10/core/Stream.h>

#include <string>

#include "tests/device/order.hpp"
#include "tests/device/strict_device.hpp"

namespace dds::test::strict {

Order& order();

c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);
c10::Stream current_stream(c10::DeviceIndex device);
void set_current_stream(const c10::Stream& stream);
c10::Stream next_stream(c10::DeviceIndex device);  ///< of the pool

/// Counts on a stream: `count(stream, &Counts::launches)`.
void count(StreamKey stream, std::int64_t Counts::*what);
/// The host waits for the stream, on behalf of `what`.
void wait_for(const c10::Stream& stream, const std::string& what);
/// The same where the order of events is known already.
void count_wait(StreamKey stream, const std::string& what);
/// Adds a violation, unless the text is empty.
void report(const std::string& violation);

}  // namespace dds::test::strict
