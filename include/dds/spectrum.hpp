// Singular values, the floor of rounding noise, and the numbers of a signature.
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
  /// Of a wider matrix only the right singular vectors of its min(rows, width) singular values are made.
  static constexpr std::int64_t kMostAxes = 2048;

  std::int64_t rows = 0;  ///< rows of the matrix
  /// n in lambda = sigma^2 / n. It is `rows`, unless several scaled rows make up one expectation.
  std::int64_t divisor = 0;
  std::int64_t width = 0;     ///< d
  bool finite = true;         ///< false: the rows have a NaN or Inf, and nothing below is filled in
  std::vector<double> sigma;  ///< the min(rows, width) singular values divided by 2^exponent, descending
  int exponent = 0;           ///< chosen so that the squares of sigma stay within the range of double
  bool retried = false;       ///< the solver failed on this matrix, and a slower, safer one was used
  double cancellation = 1;    ///< factor in the floor: 1 + T / |delta_out| (noise_floor)
  at::Tensor factor;          ///< min(rows, width) x width, fp64: the matrix's triangular factor divided by 2^exponent
  /// With `vectors`: right singular vectors, one a row, in the order of sigma. fp64, CPU; d x d, or min(rows, d) x d
  /// where d is above kMostAxes.
  at::Tensor right;
};

/// Reads the spectra of several matrices at once, in fp64. Factors (min(n, d) x d) of equal shape go through one
/// batched torch::linalg call on their device. The results of a device take one transfer to the CPU, and each set of
/// vectors takes one more.
///
/// `vectors`: fill in Spectrum::right.
/// Error, with u = 2^-53 and the error of TriangularAccumulator included:
///   a singular value is off by at most e = 10 sqrt(d) u sigma_max;
///   a right singular vector is off by an angle of at most e / (gap to the other singular values);
///   the vectors are orthonormal to 20 sqrt(d) u.
/// If the solver does not converge on a matrix (on GPUs eigh and svd of low-rank matrices: pytorch#94772, #105359), the
/// CPU's solver is used for it, and if that fails a Jacobi iteration. Spectrum::retried is then set.
/// Throws InvalidArgument for a null pointer or an accumulator without rows.
std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors = false);

/// The spectrum of one matrix.
Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors = false);

/// The noise floor: singular values at or below it are rounding noise, for an n x d matrix of entries of `dtype`.
///   floor = sqrt(min(n, d)) (2 eps + 10 u) sigma_max
/// eps is the distance from 1 to the next larger number of `dtype`, and u = 2^-53.
///
/// Why: independent relative errors of eps/2 in the entries add a noise matrix to M. Its singular values are at most
/// (eps/2) sigma_max (1 + sqrt(d/n)). The rest of 2 eps is room for errors that accumulate in the forward and backward
/// pass. 10 u is the error of read_spectra. It matters for fp64 only: without it an exactly dead direction can come out
/// above the floor.
///
/// Activations: an fp32 and an fp64 run of the same network differ by less than 0.6 floors at every layer
/// (tests/monitor/floor_test.cpp: ReLU and tanh, 2 to 12 layers, before and after training, 100 seeds each).
///
/// Gradients: terms cancel in the gradient delta_out of the loss at the network's output. Where the network fits its
/// data, delta_out = p - y or f - y is a small difference of large terms, and carries their rounding (up to 140 floors
/// were seen). So on the Fisher side
///   Signature::floor = floor * Signature::cancellation,   cancellation = 1 + T / |delta_out|,
///   T = sqrt(n) + |z| / 2   for a softmax of logits z,
///       sqrt(N) + |z| / 4   for N logistic functions of logits z,
///       2 |f|               for squared errors (f - y)^2.
/// |.| is the Frobenius norm over the n rows of the network's output. Sample weights apply to T and delta_out alike.
/// In networks of up to 5 layers, fp32 and fp64 differ by less than 1.1 of this floor, with few exceptions.
/// T needs a known loss. In a training step the recorder must know the loss operator (CapturedLoss::Difference). In a
/// checkpoint read the likelihood must give T (Likelihood::cancelling_terms). Otherwise the factor is 1, and the
/// signature has Status::LossUnknown.
///
/// Two errors are not in the floor of layer l:
///   Backpropagation brings errors from the layers m > l. With these, fp32 and fp64 differ by less than
///     sum_{m >= l} floor_m |W_{l+1}| ... |W_m| (1 + T / |delta_out|).
///   The difference exceeded 1.1 floors of the layer alone in 4 of 1,600 networks of 12 layers, and in 7 of 2,000
///   networks of 4 layers that fit their data by a squared or a Huber loss; by up to 2.2.
///   The gradient of a ReLU jumps at zero. If the input of a unit is within rounding of zero, a sample can have another
///   gradient in fp64 (seen in 1 of 480 networks of 12 layers: 380 floors).
double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max);

/// Fills in the numbers of a signature. The floor is noise_floor times spectrum.cancellation.
/// Input:
///   dtype                        of the rows as captured, which decides the floor;
///   signature.structural_bound   the largest rank that the network and the probe allow (empty: min(rows, width));
///   signature.bound_ended_by     if not empty, the bound may be smaller than that, and counts only if the rank reaches
///                                it: otherwise bound and dead_directions are empty, with Status::BoundUnknown;
///   signature.fixed_rank         number of eigenvalues in logdet_fixed_rank; if empty, logdet_fixed_rank stays empty.
/// Result: all numbers from `rows` to `stable_rank` except born and revived; and Status::NonFinite, Status::Zero,
/// Status::BelowFloor or Status::SolverRetried where they hold.
void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature);

/// The right singular vectors at or below the floor, one a row: the directions in which the rows have no component
/// above rounding. Result: (width - rank) x width, fp64, CPU. Signature::dead_directions = structural_bound - rank can
/// be smaller: it leaves out the axes that are dead by the shapes of the network alone. Throws InvalidArgument for a
/// spectrum that was read without vectors, or is wider than Spectrum::kMostAxes, and for a signature without a rank.
at::Tensor dead_axes(const Spectrum& spectrum, const Signature& signature);

}  // namespace dds
