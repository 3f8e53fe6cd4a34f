// Singular values, what counts as one, and the numbers that are read from them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// The singular values of a matrix of rows.
struct Spectrum {
  std::int64_t rows = 0;  ///< rows of the matrix
  std::int64_t divisor =
      0;                   ///< n in lambda = sigma^2 / n: the rows, unless several scaled rows make up one expectation
  std::int64_t width = 0;  ///< d
  bool finite = true;      ///< false: a NaN or Inf among the rows, and nothing below is filled in
  std::vector<double> sigma;  ///< the min(rows, width) singular values divided by 2^exponent, descending
  int exponent = 0;           ///< keeps the squares of sigma within double's range
  bool retried = false;       ///< the solver failed on this matrix, and a slower, safer one was taken
  double cancellation = 1;    ///< what the floor is multiplied by: 1 + T / |delta_out| of noise_floor's page
  at::Tensor right;  ///< on request: right singular vectors, one a row (d x d, fp64, CPU), in the order of sigma
};

/// Reads the spectra of several matrices at once, in fp64, on the smaller side of each matrix. Matrices of equal shape
/// go through one batched torch::linalg call on their device. One transfer brings the results of a device to the CPU,
/// and one more each set of vectors.
///
/// Error: a singular value is off by at most 10 sqrt(d) u sigma_max, u = 2^-53; that includes the error of
/// TriangularAccumulator. A right singular vector is off by an angle of at most that over the gap to the other singular
/// values. The vectors are orthonormal to 20 sqrt(d) u.
/// Where a solver does not converge (eigh and svd of low-rank matrices on GPUs, pytorch#94772 and #105359), the CPU's
/// takes its place for that matrix, and then a Jacobi iteration: Spectrum::retried.
/// Throws InvalidArgument for a null pointer or an accumulator without rows.
std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors = false);

/// The spectrum of one matrix.
Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors = false);

/// The noise floor: the singular value at and below which an n x d matrix of entries of this dtype holds nothing but
/// rounding noise.
///   floor = sqrt(min(n, d)) (2 eps + 10 u) sigma_max
/// eps is the distance from 1 to the next larger number of `dtype`, and u = 2^-53.
///
/// Why: entries with independent relative errors of eps/2 are off by a noise matrix, whose singular values are at most
/// (eps/2) sigma_max (1 + sqrt(d/n)). The rest of 2 eps is room for the errors that the forward and backward pass
/// accumulate. 10 u is the error of the engine itself (read_spectra). It counts for fp64 only; without it an exactly
/// dead direction can come out above the floor.
///
/// Activations: the difference between an fp32 and an fp64 run of the same network stays below 0.6 floors at every
/// layer (tests/monitor/floor_test.cpp: ReLU and tanh, 2 to 12 layers, before and after training, 100 seeds each).
///
/// Gradients: the loss cancels. In a network that fits its data, delta = p - y and delta = f - y are small differences
/// of large terms, and carry the rounding of those (up to 140 floors were seen). So on the Fisher side
///   Signature::floor = floor * Signature::cancellation,   cancellation = 1 + T / |delta_out|,
///   T = sqrt(n) + |z| / 2   for a softmax of logits z,
///       sqrt(N) + |z| / 4   for N logistic functions of logits z,
///       2 |f|               for squared errors (f - y)^2.
/// |.| is the norm of Frobenius over the n rows of the network's output. Sample weights apply to T and delta_out alike.
/// In networks of up to 5 layers the difference stays below 1.1 of that, with few exceptions.
/// The loss must be known: inside a step its operator to the recorder (CapturedLoss::Difference), in a checkpoint read
/// its terms to the likelihood (Likelihood::cancelling_terms). Otherwise the factor is 1, and the status
/// Status::LossUnknown.
///
/// Not in the floor of layer l: errors that backpropagation brings from the layers m > l to it. With them the
/// difference stays below
///   sum_{m >= l} floor_m |W_{l+1}| ... |W_m| (1 + T / |delta_out|).
/// It exceeded 1.1 of the floor of the layer alone in 4 of 1,600 networks of 12 layers, and in 7 of 2,000 networks of 4
/// layers that fit their data by a squared or a Huber loss; by up to 2.2.
/// The gradient of a ReLU jumps at zero: a sample with a unit whose input is as near to zero as its rounding can have
/// another gradient in fp64 (seen in 1 of 480 networks of 12 layers: 380 floors).
double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max);

/// Fills in the numbers of a signature. The one place that decides what is above the floor, which is noise_floor times
/// spectrum.cancellation.
/// Input: signature.structural_bound, the bound on the rank by the shapes of the network (it is lowered to min(n, d));
/// signature.fixed_rank, the rank that logdet_fixed_rank is taken over (empty: it stays empty); and the dtype of the
/// rows as they were captured, which decides the floor.
/// Result: all numbers from rows to stable_rank, and Status::NonFinite, Status::Zero, Status::BelowFloor or
/// Status::SolverRetried where they hold.
void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature);

/// The right singular vectors at or below the floor, one a row: the directions in which no row has a component.
/// Result: (width - rank) x width, fp64, CPU. These may be more than Signature::dead_directions, which is
/// structural_bound - rank: it leaves out what the shapes of the network alone make dead.
/// Throws InvalidArgument for a spectrum that was read without vectors.
at::Tensor dead_axes(const Spectrum& spectrum, const Signature& signature);

}  // namespace dds
