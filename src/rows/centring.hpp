// Rows less their mean, streamed: means and factors of parts of the rows make those of all (Chan, Golub and LeVeque
// 1979).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/triangular.hpp>
#include <optional>

namespace dds {

/// The mean of some rows.
struct Mean {
  at::Tensor value;  ///< fp64, one entry a column; undefined: of no rows
  std::int64_t rows = 0;
};

/// A matrix of as many rows as `rows` (n x d, any floating dtype), fp64. Put below the rows that `mean` is of, less
/// this mean, it makes the Gram matrix that of all rows less the mean of all. `mean` becomes that mean.
at::Tensor centred_rows(const at::Tensor& rows, Mean& mean);

/// The factor of all rows less their mean, from those of two parts. `mean` is of `factor`'s rows, and becomes that of
/// all.
TriangularAccumulator joined_centred(const TriangularAccumulator& factor, Mean& mean,
                                     const TriangularAccumulator& other, const Mean& others);

}  // namespace dds
