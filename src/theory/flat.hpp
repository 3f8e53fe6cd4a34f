// The directions in which K does not bend upwards at a point. Only they can hold curves and slopes that a line does not
// lead to: in all others K has one minimum, and its gradient leads there.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "src/theory/landscape.hpp"
#include "src/theory/minimum.hpp"

namespace dds {

/// Unit vector number `i` of those whose entries differ in size, so that no symmetry of K maps them to themselves. The
/// same in every run, so that no generator of the caller's is drawn from.
at::Tensor uneven_vector(const at::Tensor& like, int i);

class Flat {
 public:
  /// `least`: a curvature at or below this is none.
  Flat(Landscape& landscape, const at::Tensor& point, double least);

  /// At most `most` unit vectors of them, orthogonal to `direction` if that is given, and to one another as far as
  /// there are that many. The same in every run.
  std::vector<at::Tensor> rays(int most, const at::Tensor& direction = {}) const;

 private:
  at::Tensor part_of(const at::Tensor& v) const;

  Landscape& landscape_;
  at::Tensor point_;
  at::Tensor basis_;  ///< by columns; undefined for more weights than a whole Hessian is taken of
};

}  // namespace dds
