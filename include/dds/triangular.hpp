// The triangular factor of a stream of rows. It keeps all that a spectrum needs, in the memory of a few d x d matrices.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// Keeps the triangular factor R of the matrix M (n x d) of all rows so far: M^T M = R^T R. R has the singular values
/// and the right singular vectors of M, down to rounding. M^T M itself would lose every singular value below 1e-8 of
/// the largest in fp64.
///
/// Rows are buffered into blocks of max(4 d, clamp(65536 / d, 2048, 4096)) rows. A full block is reduced by a
/// Householder QR, together with factors of earlier blocks. Factors are merged like the carries of a binary counter of
/// the blocks, so a row takes part in O(log n) factorisations. Memory: two blocks and d^2 log n. Cost: close to one QR
/// of M.
///
/// It works in fp64 on the device of the rows, and never waits for the device. Each factor has its own power of two, so
/// scales from 1e-290 to 1e+290 neither overflow nor vanish.
///
/// Error: the singular values of R differ from those of M by at most 10 sqrt(d) u sigma_max, u = 2^-53, for any order
/// and sizes of the batches. Rows of a shorter dtype are converted exactly. For the rounding that the rows already
/// have, see noise_floor (<dds/spectrum.hpp>).
///
/// A copy is independent of the original. An object is not safe for two threads at once.
class TriangularAccumulator {
 public:
  /// For rows of `width` = d entries.
  /// Throws InvalidArgument unless width > 0.
  explicit TriangularAccumulator(std::int64_t width);

  /// Adds rows. They are copied or reduced before the call returns.
  /// Valid input: m x width, any floating dtype, the same device in all updates.
  /// Throws InvalidArgument for any other.
  void update(const at::Tensor& rows);

  /// Adds all rows of `other`.
  /// Throws InvalidArgument if it has another width or device.
  void merge(const TriangularAccumulator& other);

  /// A copy with its rows on `device`.
  TriangularAccumulator to(at::Device device) const;

  std::int64_t width() const { return width_; }
  std::int64_t rows() const { return rows_; }
  /// Device of the rows. Empty before the first.
  std::optional<at::Device> device() const { return device_; }

  /// The whole state, for `torch::save(accumulator.state(), path)`. The tensors are on the device of the rows, and are
  /// shared: do not write to them.
  std::vector<at::Tensor> state() const;
  /// An accumulator that goes on bit for bit as the one that gave `state`.
  /// Throws InvalidArgument for tensors that state() did not make.
  static TriangularAccumulator from_state(const std::vector<at::Tensor>& state);

  /// M = Q (2^exponent factor) for some Q with orthonormal columns.
  struct Factor {
    at::Tensor factor;    ///< min(n, d) x d, fp64; all zero if the rows are not finite
    at::Tensor exponent;  ///< 0-d, fp64
    at::Tensor finite;    ///< 0-d, bool: false if the rows have a NaN or Inf
  };
  /// The factor of all rows so far, on their device.
  /// Throws InvalidArgument if there are no rows.
  Factor factor() const;

  /// An accumulator of `rows` rows with the factor 2^exponent factor, as returned by factor(). The tensors are shared:
  /// do not write to them. Valid input: `factor` min(rows, d) x d, fp64; `exponent` 0-d, fp64. Throws InvalidArgument
  /// for any other.
  static TriangularAccumulator from_factor(std::int64_t rows, const at::Tensor& factor, const at::Tensor& exponent);

 private:
  friend class TriangularWindow;

  /// The factor of some of the rows.
  struct Node {
    at::Tensor factor;    ///< at most width rows, fp64
    at::Tensor exponent;  ///< 0-d, fp64; NaN if the rows are not finite
  };
  /// The factor of these rows (m x d, fp64; undefined: no rows) and these nodes together.
  static Node reduce(const at::Tensor& rows, const std::vector<Node>& nodes);
  Node node() const;                 ///< of all rows so far
  void add(const at::Tensor& rows);  ///< as a block
  void add(Node node, std::size_t level);
  void keep(const at::Tensor& rows);  ///< in the buffer
  at::Tensor buffered() const;
  void check_device(at::Device device);

  /// A buffer that a copy does not share.
  struct Buffer {
    Buffer() = default;
    Buffer(const Buffer& other);
    Buffer(Buffer&&) = default;
    Buffer& operator=(Buffer other);

    at::Tensor rows;  ///< capacity x width, fp64; undefined while nothing was kept
    std::int64_t used = 0;
  };

  std::int64_t width_;
  std::int64_t block_ = 0;  ///< rows that are kept before they are reduced
  std::int64_t rows_ = 0;
  std::optional<at::Device> device_;
  Buffer buffer_;
  std::vector<std::optional<Node>> levels_;  ///< levels_[k]: the factor of 2^k blocks, as in a binary counter
};

}  // namespace dds
