// The dead subspace of a reading, from which causes take their parts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/causes.hpp>
#include <vector>

namespace dds {

class DeadSpan {
 public:
  /// `factor`: k x d, fp64, CPU. A unit vector v is dead if |factor v| <= `floor`. `smallest`: the smallest singular
  /// value above the floor; 0: there is none.
  DeadSpan(at::Tensor factor, double floor, double smallest);

  std::int64_t width() const { return factor_.size(1); }
  double floor() const { return floor_; }
  /// |factor e_j| of each column j.
  const std::vector<double>& column_norms() const { return norms_; }
  const at::Tensor& factor() const { return factor_; }

  /// Takes what is dead in the span of these rows (m x d) and was not taken before, at most `most` dimensions, and puts
  /// directions, angle and axes into `cause`. False if there is nothing.
  bool take(const at::Tensor& vectors, std::int64_t most, Cause& cause);
  /// The same for the axes of these columns.
  bool take_units(std::vector<std::int64_t> units, std::int64_t most, Cause& cause);

  /// An orthonormal basis of what was not taken, one vector a row. `dimension`: of the whole dead subspace.
  at::Tensor rest(std::int64_t dimension) const;

 private:
  at::Tensor dead_part(const at::Tensor& basis, double& largest) const;

  at::Tensor factor_;
  double floor_, smallest_;
  std::vector<double> norms_;
  at::Tensor taken_;  ///< orthonormal rows
};

}  // namespace dds
