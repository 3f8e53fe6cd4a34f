// A sliding window over triangular factors: the last few readings' rows as one matrix.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// Keeps the factors of the last `capacity` accumulators that were pushed, and gives that of all their rows together:
/// mini-batches of fewer rows than columns have a rank of their own size, a window of them that of the layer.
///
/// What leaves the window leaves no trace: nothing is subtracted (which would lose the small singular values), factors
/// are merged again. Two stacks of partial merges make that two QRs of (2 d x d) a push on average, whatever the
/// capacity; memory 2 capacity d^2. Exponential forgetting, which would need d^2 only, is not offered: a direction that
/// died would sink by the forgetting rate for hundreds of readings, and look as if it were decaying still.
///
/// Error, dtype and device: as TriangularAccumulator.
class TriangularWindow {
 public:
  /// Throws InvalidArgument unless capacity > 0.
  explicit TriangularWindow(std::int64_t capacity);

  /// Adds the rows of `accumulator` and drops those of the oldest beyond the capacity. An accumulator of another width
  /// or device than before starts the window anew: its rows have nothing in common with what came before. Throws
  /// InvalidArgument for one without rows.
  void push(const TriangularAccumulator& accumulator);

  /// Accumulators in the window.
  std::int64_t size() const { return static_cast<std::int64_t>(older_.size() + newer_.size()); }

  /// All rows in the window. Throws InvalidArgument if there are none.
  TriangularAccumulator all() const;

 private:
  using Node = TriangularAccumulator::Node;
  struct Part {
    Node node;
    std::int64_t rows;
  };
  static Part joined(const Part& a, const Part& b);

  std::int64_t capacity_;
  std::int64_t width_ = 0;
  std::optional<at::Device> device_;
  std::vector<Part> older_;  ///< the last: the oldest and all of `older_` after it, merged
  std::vector<Part> newer_;  ///< in the order of their coming
  std::optional<Part> sum_;  ///< all of `newer_`
};

}  // namespace dds
