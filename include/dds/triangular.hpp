// The streamed triangular factor: all that a spectrum needs of any number of rows, in the memory of a few d x d
// matrices.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// Keeps the triangular factor R of all the rows M (n x d) that it has seen: M^T M = R^T R. So R has the singular
/// values and the right singular vectors of M. Forming M^T M instead would lose every singular value below 1e-8 of the
/// largest in fp64; R keeps them down to rounding.
///
/// Rows are buffered into blocks of max(2048, 4 d) rows (4096 where d <= 16, so that many small batches share a QR). A
/// full block is reduced by a Householder QR, together with factors of earlier blocks. Which ones follows a binary
/// counter of the blocks: factors are carried as its digits are. So a row takes part in O(log n) factorisations.
/// Memory: two blocks and d^2 log n. Cost: close to one QR of M.
///
/// Works in fp64 on the device of the rows, and never waits for it. Each factor carries a power of two of its own, so
/// that scales from 1e-290 to 1e+290 neither overflow nor vanish.
///
/// Error: the singular values of R differ from those of M by at most 10 sqrt(d) u sigma_max, u = 2^-53, whatever the
/// order and the sizes of the batches. Rows of a shorter type are converted exactly, so this holds for their values as
/// they are. For the rounding that they carry already see noise_floor.
///
/// A copy is independent of the original. Not for two threads at once.
class TriangularAccumulator {
 public:
  /// For rows of `width` entries. Throws InvalidArgument unless width > 0.
  explicit TriangularAccumulator(std::int64_t width);

  /// Adds rows (m x width, any floating dtype, one device for all updates); they are copied or reduced before the call
  /// returns. Throws InvalidArgument for another shape or dtype, or another device than before.
  void update(const at::Tensor& rows);

  /// Adds all the rows that `other` has seen. Throws InvalidArgument for another width or device.
  void merge(const TriangularAccumulator& other);

  /// A copy with its rows on `device`.
  TriangularAccumulator to(at::Device device) const;

  std::int64_t width() const { return width_; }
  std::int64_t rows() const { return rows_; }
  /// Of the rows; empty before the first.
  std::optional<at::Device> device() const { return device_; }

  /// All that it holds, for `torch::save(accumulator.state(), path)`: from_state gives an accumulator that goes on bit
  /// for bit as this one would. The tensors are on the rows' device, and shared: not to be written to.
  std::vector<at::Tensor> state() const;
  /// Throws InvalidArgument for tensors that state() did not make.
  static TriangularAccumulator from_state(const std::vector<at::Tensor>& state);

  /// M = scale * factor up to a rotation of the rows, `scale` a power of two.
  struct Factor {
    at::Tensor factor;    ///< min(n, d) x d, fp64; all zero if the rows are not finite
    at::Tensor exponent;  ///< 0-d, fp64: scale = 2^exponent
    at::Tensor finite;    ///< 0-d, bool: no NaN or Inf among the rows
  };
  /// The factor of all rows so far, on their device. Throws InvalidArgument if there are none.
  Factor factor() const;

  /// An accumulator of `rows` rows whose factor is 2^exponent * factor, as factor() gave it. The tensors are shared:
  /// not to be written to. Throws InvalidArgument unless `factor` is a matrix (min(rows, d) x d, fp64) and `exponent`
  /// 0-d and fp64.
  static TriangularAccumulator from_factor(std::int64_t rows, const at::Tensor& factor, const at::Tensor& exponent);

 private:
  friend class TriangularWindow;

  /// The factor of some of the rows.
  struct Node {
    at::Tensor factor;    ///< at most width rows, fp64
    at::Tensor exponent;  ///< 0-d, fp64; NaN if the rows are not finite
  };
  /// The factor of all these rows (m x d, fp64; undefined: none) and nodes together.
  static Node reduce(const at::Tensor& rows, const std::vector<Node>& nodes);
  Node node() const;                 ///< of all rows so far
  void add(const at::Tensor& rows);  ///< a block
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
