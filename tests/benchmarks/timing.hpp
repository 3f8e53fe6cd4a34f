// Ratios of times that can be believed: interleaved pairs in one process, their median, and its bootstrap interval.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace dds::benchmarks {

/// Median of the ratios time(b)/time(a) over interleaved pairs, with its 95 % bootstrap interval, and the median times.
struct Ratio {
  double median = 0, low = 0, high = 0;
  double seconds_a = 0, seconds_b = 0;
};

/// Runs `a` and `b` in turn, `pairs` times, each as often as takes about 10 ms at least; which one goes first
/// alternates.
Ratio compare(const std::function<void()>& a, const std::function<void()>& b, std::int64_t pairs = 25);

}  // namespace dds::benchmarks
