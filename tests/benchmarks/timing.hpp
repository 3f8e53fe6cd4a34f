// Ratios of times that can be believed: interleaved pairs in one process, their median, and its bootstrap interval.
#pragma once

#include <cstdint>
#include <fstream>
#include <functional>
#include <optional>
#include <string>

#include "experiments/harness/harness.hpp"

namespace dds::benchmarks {

/// Median of the ratios time(b)/time(a) over interleaved pairs, with its 95 % bootstrap interval, and the median times.
struct Ratio {
  double median = 0, low = 0, high = 0;
  double seconds_a = 0, seconds_b = 0;
};

/// Runs `a` and `b` in turn, `pairs` times, each as often as takes about 10 ms at least; which one goes first
/// alternates.
Ratio compare(const std::function<void()>& a, const std::function<void()>& b, std::int64_t pairs = 25);

/// What a benchmark leaves: NAME.csv, and summary.json with a claim for each ratio.
class Results {
 public:
  explicit Results(const experiments::RunOptions& options);

  /// `goal`: what the ratio may be at most. An interval wider than 0.04 decides nothing (src/docs/the_method.md,
  /// Correlations and intervals).
  void add(const std::string& id, const std::string& statement, const Ratio& ratio, std::optional<double> goal);
  /// For a ratio that should be large, how many times faster `a` is than `b`: `goal` is what it must be at least.
  void add_speedup(const std::string& id, const std::string& statement, const Ratio& ratio, std::optional<double> goal);
  void add(const experiments::Claim& claim) { summary_.add(claim); }
  void write() { summary_.write(); }

 private:
  void record(experiments::Claim claim, const Ratio& ratio);

  experiments::Summary summary_;
  std::ofstream table_;
};

}  // namespace dds::benchmarks
