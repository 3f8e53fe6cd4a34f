// A sliding window over triangular factors: the rows of the last few readings as one matrix.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// Keeps the factors of the last `capacity` accumulators that were pushed, and gives the factor of all their rows.
/// A mini-batch of n < d rows has rank n at most. A window of such batches can have the rank of the layer.
///
/// Rows that leave the window leave no trace. Nothing is subtracted, which would lose the small singular values: the
/// factors that stay are merged again, in two stacks of partial merges.
/// Cost: two QRs of a 2 d x d matrix for each push on average, whatever the capacity. Memory: 2 capacity d^2 doubles.
/// Exponential forgetting would need d^2 only, and is not offered: the eigenvalue of a direction that died would sink
/// by the forgetting rate for hundreds of readings, as if the direction were dying still.
///
/// Error, dtype and device: as TriangularAccumulator.
class TriangularWindow {
 public:
  /// Throws InvalidArgument unless capacity >= 1.
  explicit TriangularWindow(std::int64_t capacity);

  /// Adds the rows of `accumulator`, and drops those of the oldest one beyond the capacity. An accumulator of another
  /// width or device than before starts the window anew.
  /// Throws InvalidArgument for an accumulator without rows.
  void push(const TriangularAccumulator& accumulator);

  /// Accumulators in the window.
  std::int64_t size() const { return static_cast<std::int64_t>(older_.size() + newer_.size()); }

  /// All rows in the window.
  /// Throws InvalidArgument if there are none.
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
