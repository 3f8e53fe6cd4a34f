// A sliding window over triangular factors. It joins the rows of the last few readings into one matrix.
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
/// Rows that leave the window leave no trace. Nothing is subtracted, since that would lose the small singular values.
/// The factors that stay are merged again, by two stacks of partial merges.
/// Cost: on average two QRs of a 2 d x d matrix per push, for any capacity. Memory: at most (capacity + 2) d^2 doubles.
///
/// Why no exponential forgetting, which needs only d^2: once a direction has died, its eigenvalue would sink at the
/// forgetting rate for hundreds of readings, as if the direction were still dying.
///
/// Error, dtype and device: as TriangularAccumulator.
class TriangularWindow {
 public:
  /// Throws InvalidArgument unless capacity >= 1.
  explicit TriangularWindow(std::int64_t capacity);

  /// Adds the rows of `accumulator`. Beyond the capacity, the rows of the oldest accumulator are dropped. Another width
  /// or device than before begins the window anew.
  /// Throws InvalidArgument for an accumulator without rows.
  void push(const TriangularAccumulator& accumulator);

  /// Number of accumulators in the window.
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
  std::vector<Part> older_;  ///< the back merges the oldest part with all later parts of this stack
  std::vector<Part> newer_;  ///< in the order of arrival, not merged
  std::optional<Part> sum_;  ///< all of `newer_`, merged
};

}  // namespace dds
