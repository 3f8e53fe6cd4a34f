// Singular values, what counts as one, and the numbers that are read from them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <dds/signature.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <vector>

namespace dds {

/// The singular values of a matrix of rows.
struct Spectrum {
  std::int64_t rows = 0;  ///< rows of the matrix
  std::int64_t divisor =
      0;                   ///< n in lambda = sigma^2 / n: the rows, unless several scaled rows make up one expectation
  std::int64_t width = 0;  ///< d
  bool finite = true;      ///< false: a NaN or Inf among the rows, and nothing below is filled in
  std::vector<double> sigma;  ///< the min(rows, width) singular values divided by 2^exponent, descending
  int exponent = 0;           ///< keeps the squares of sigma within double's range
  at::Tensor right;  ///< on request: right singular vectors, one a row (d x d, fp64, CPU), in the order of sigma
};

/// Reads the spectrum of all the rows in `accumulator`: one torch::linalg call on their device, one transfer to the
/// CPU. Absolute error of a singular value: that of TriangularAccumulator. Throws InvalidArgument if there are no rows.
Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors = false);

/// The singular value at and below which a matrix of n x d entries of this dtype holds nothing but rounding noise:
///   floor = 2 sqrt(min(n, d)) eps sigma_max,   eps the distance of 1 to the next larger number of `dtype`.
/// Entries with independent relative errors u = eps/2 make a noise matrix whose singular values are near u rms(M)
/// sqrt(n), at most u sigma_max (1 + sqrt(d/n)); the rest is room for the errors that the forward and backward pass
/// accumulate.
double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max);

/// Fills in the numbers of a signature: sigma_max ... stable_rank, rank, dead directions, floor, and Status::NonFinite
/// or Status::Zero. The one place that decides what is above the floor.
///   signature.structural_bound    bound on the rank by the network's shapes; lowered to min(n, d) here
///   signature.fixed_rank          if set, what logdet_fixed_rank is taken over
///   dtype                         of the rows as they were captured: it decides the floor
void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature);

/// Right singular vectors at or below the floor, as rows: the directions in which no row has a component. (width -
/// rank) x width, fp64, CPU. The spectrum must have been read with vectors.
at::Tensor dead_axes(const Spectrum& spectrum, const Signature& signature);

}  // namespace dds
