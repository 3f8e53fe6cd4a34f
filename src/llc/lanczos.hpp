// Directions in which a symmetric operator is negative, by Lanczos' method.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace dds {

struct NegativeDirection {
  double curvature;  ///< v^T H v
  at::Tensor v;      ///< a unit vector
};

/// Directions with v^T H v < 0, the lowest first: orthonormal, with v_i^T H v_j = 0, and orthogonal to the unit vectors
/// `known`. The first approximates the lowest eigenvector of H there. Of equal eigenvalues it finds one direction: call
/// it again with that among `known`. Curvatures within rounding of zero, against the largest that was seen, are left
/// out.
///
/// `times` returns H v. `start` is any vector that is not orthogonal to what is looked for, such as a random one.
/// `stop` is asked before each product; true: no further one.
std::vector<NegativeDirection> negative_directions(const std::function<at::Tensor(const at::Tensor&)>& times,
                                                   const at::Tensor& start, const std::vector<at::Tensor>& known,
                                                   const std::function<bool()>& stop);

}  // namespace dds
