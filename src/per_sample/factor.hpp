// One side of a product of many rows, written out or cut out of images when it is asked for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dds::hooks {

/// The patches of an image that a convolution multiplies with its kernel. The vectors have one entry for each dimension
/// of space.
struct Windows {
  std::vector<std::int64_t> kernel, stride, dilation;
  std::vector<std::int64_t> before, after;  ///< padding
  std::vector<std::int64_t> positions;      ///< how many there are
};

/// One side of a product: (n, g, p, f), for n samples, g groups that do not mix, p positions and f features.
class Factor {
 public:
  Factor() = default;
  explicit Factor(at::Tensor rows);
  /// Of `image` (n, k, channels, space...), channels in `groups`: features are (channel in the group, kernel...),
  /// positions (k, windows...).
  Factor(at::Tensor image, std::int64_t groups, Windows windows);

  std::int64_t samples() const { return source_.size(0); }
  std::int64_t groups() const { return groups_; }
  std::int64_t positions() const { return positions_; }
  std::int64_t features() const { return features_; }
  bool is_cut() const { return cut_; }
  const at::Tensor& source() const { return source_; }
  const at::TensorOptions options() const { return source_.options(); }

  /// Sample i times weights[i].
  Factor weighted(const at::Tensor& weights) const;

  /// Of samples begin <= i < end: (end - begin, g, p, f).
  at::Tensor slice(std::int64_t begin, std::int64_t end) const;

 private:
  at::Tensor source_;
  Windows windows_;
  bool cut_ = false;
  std::int64_t groups_ = 1, positions_ = 1, features_ = 1;
};

/// rows (n, ...), row i times weights[i], in the type of the rows.
at::Tensor weighted_rows(const at::Tensor& rows, const at::Tensor& weights);

/// (b, g, p, f) -> (g, b p, f).
at::Tensor stacked(const at::Tensor& slice);

/// Samples of which `bytes` each fit into max_bytes; at least one, at most all.
std::int64_t block_of(std::int64_t samples, std::int64_t bytes, std::int64_t max_bytes);

}  // namespace dds::hooks
