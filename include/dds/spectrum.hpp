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

/// Reads the spectra of several matrices at once: those of equal shape in one batched torch::linalg call on their
/// device, then one transfer to the CPU for all of them (one more for each that is asked for vectors). Works in fp64,
/// on the smaller side of each matrix.
///
/// Error: a singular value is off by at most 10 sqrt(d) u sigma_max, u = 2^-53, that of TriangularAccumulator included.
/// A right singular vector is off by an angle of at most that over the gap to the other singular values; the vectors
/// are orthonormal to 20 sqrt(d) u. A solver that does not converge, as eigh and svd on GPUs are known to on low-rank
/// matrices (pytorch#94772, #105359), is replaced for that matrix by the CPU's, and that by a Jacobi iteration:
/// Spectrum::retried. Throws InvalidArgument for a null pointer or an accumulator without rows.
std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors = false);

/// The spectrum of one matrix.
Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors = false);

/// The singular value at and below which a matrix of n x d entries of this dtype holds nothing but rounding noise:
///   floor = sqrt(min(n, d)) (2 eps + 10 u) sigma_max,
/// eps the distance of 1 to the next larger number of `dtype`, u = 2^-53. The second term is the engine's own error
/// (read_spectra), which only counts for fp64: without it an exactly dead direction can come out above the floor.
/// Entries with independent relative errors u = eps/2 make a noise matrix whose singular values are near u rms(M)
/// sqrt(n), at most u sigma_max (1 + sqrt(d/n)); the rest is room for the errors that the forward and backward pass
/// accumulate.
///
/// Checked against the difference between an fp32 and an fp64 run of the same networks (tests/monitor/floor_test.cpp,
/// ReLU and tanh, 2 to 12 layers, before and after training, 100 seeds each): the difference of the activations stays
/// below 0.6 floors at every layer, whatever the depth. That of the gradients does so only where the loss does not
/// cancel: delta = p - y and delta = f - y of a network that fits are small differences of large terms, and carry their
/// rounding (seen: 140 floors). In networks of up to 5 layers it stays, with few exceptions, below 1.1 of
///   floor (1 + T / |delta_out|),
///   T = sqrt(n) + |z| / 2  for a softmax of logits z,   sqrt(N) + |z| / 4  for N logistic functions of logits z,
///       2 |f|              for squared errors (f - y)^2,
/// norms of Frobenius over the n rows of the network's output, T and delta_out weighted alike where samples are. That
/// is Signature::floor on the Fisher side, the factor Signature::cancellation: inside a step where the recorder knows
/// the loss operator (CapturedLoss::Difference), in a checkpoint read where the likelihood does
/// (Likelihood::cancelling_terms); otherwise the factor is 1 and the status says Status::LossUnknown.
///
/// What it leaves out: the layers above hand their errors down, of which no number of the layer itself tells. The error
/// stays below sum_m>=l floor_m |W_l+1| ... |W_m| (1 + T / |delta_out|), but 4 of 1,600 networks of 12 layers, and of
/// 2,000 networks of 4 layers that fit their data by a squared or a Huber loss 7, exceeded 1.1 of the floor itself, by
/// up to 2.2. And the gradient of a ReLU jumps at zero: a sample with a unit as near to zero as its rounding has
/// another gradient in fp64 (seen in 1 of 480 networks of 12 layers, 380 floors).
double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max);

/// Fills in the numbers of a signature: sigma_max ... stable_rank, rank, dead directions, floor, and Status::NonFinite,
/// Status::Zero or Status::BelowFloor. The one place that decides what is above the floor, which is noise_floor times
/// spectrum.cancellation.
///   signature.structural_bound    bound on the rank by the network's shapes; lowered to min(n, d) here
///   signature.fixed_rank          if set, what logdet_fixed_rank is taken over
///   dtype                         of the rows as they were captured: it decides the floor
void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature);

/// Right singular vectors at or below the floor, as rows: the directions in which no row has a component. (width -
/// rank) x width, fp64, CPU. The spectrum must have been read with vectors.
at::Tensor dead_axes(const Spectrum& spectrum, const Signature& signature);

}  // namespace dds
