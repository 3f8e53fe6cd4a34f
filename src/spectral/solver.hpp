// Singular value decompositions: the one of torch::linalg, and the one that cannot fail.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/spectrum.hpp>
#include <functional>
#include <vector>

namespace dds {

struct Decomposition {
  at::Tensor sigma;  ///< (..., k), descending
  at::Tensor right;  ///< (..., axes_of, d): right singular vectors, one a row; undefined unless asked for
};

/// Decomposes a batch of matrices (b x k x d, fp64, k <= d, finite) on their device. May throw c10::Error, or give NaN,
/// where it does not converge.
using Solver = std::function<Decomposition(const at::Tensor& matrices, bool vectors)>;

/// The number of right singular vectors that are made for a matrix (..., k, d): d, or k where d is above
/// Spectrum::kMostAxes.
std::int64_t axes_of(const at::Tensor& matrix);

/// torch::linalg's: divide and conquer on a CPU (gesdd), Jacobi or QR on a GPU.
Decomposition library_svd(const at::Tensor& matrices, bool vectors);

/// One-sided Jacobi (Hestenes; Demmel and Veselic 1992) on the rows of one matrix (k x d, fp64, CPU, finite, entries of
/// at most about 2^64): converges for every matrix, with an error below 10 sqrt(d) u sigma_max; some 20 times slower
/// than LAPACK at d = 256. Values below 1e-150 come out as 0.
Decomposition jacobi_svd(const at::Tensor& matrix, bool vectors);

/// read_spectra with another solver in place of library_svd, and with a Spectrum::cancellation for each (0-d, fp64;
/// undefined, or none given: 1), which come to the CPU in the same transfer.
std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors,
                                   const Solver& solver, const std::vector<at::Tensor>& cancellations = {});

}  // namespace dds
