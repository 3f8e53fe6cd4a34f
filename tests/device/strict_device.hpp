// A device that lives in host memory and forgives nothing. LibTorch lets a program register a device type of its own
// (PrivateUse1). This one computes with the CPU's kernels, so results are the CPU's to the bit, and checks what a real
// accelerator leaves to luck:
//
//   Memory. Pages can be touched only while one of the device's own kernels runs. Host code that follows a data pointer
//   ends the process, with a message and a backtrace. Addresses are never used again, so neither is freed memory.
//
//   Order. Every operator, copy and free is checked against the work that it depends on, by vector clocks over streams,
//   events and the host (order.hpp). What is not ordered is a violation, whatever the timing was. Threads of the host
//   count as one: whether they are ordered among themselves is ThreadSanitizer's to say.
//
//   Counts. Host synchronisations, copies either way, and launches.
//
// There are two devices, so that a tensor on the wrong one is an error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dds::test::strict {

constexpr c10::DeviceIndex kDevices = 2;

/// The device. Registers the backend when first called.
at::Device device(c10::DeviceIndex index = 0);

/// What happened on some streams since reset_counts().
struct Counts {
  std::int64_t launches = 0;
  std::int64_t synchronisations = 0;  ///< the host waited for a stream
  std::int64_t to_host = 0, to_device = 0;
  std::map<std::string, std::int64_t> waits;  ///< the synchronisations, by the operator that made them
};
/// On the default streams, where a training runs, whichever thread launched it (backward passes have their own).
Counts counts();
/// On all other streams.
Counts side_counts();
void reset_counts();

/// The violations so far, of all threads, and forgets them.
std::vector<std::string> violations();

}  // namespace dds::test::strict
