// K along a line, and at the lowest points beside it: the points that an order is fitted to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/order.hpp>
#include <optional>
#include <vector>

#include "src/theory/landscape.hpp"
#include "src/theory/minimum.hpp"

namespace dds {

/// w* + t u, u of length 1.
struct Line {
  at::Tensor point, direction;
  at::Tensor at(double t) const { return point.add(direction.mul(t)); }
};

/// Where the first search on a side of the line starts.
enum class Start {
  Line,    ///< at v = 0, on the line itself
  Beside,  ///< off the line: v = 0 may be stationary by symmetry alone
};

/// K on one side of the line and at the lowest points beside it. The minimiser at the last t starts the search at the
/// next, scaled as a parabola is. With Start::Beside it is scaled by the power that the last two showed.
class Valley {
 public:
  /// `first` is the |t| that is asked for first.
  Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, Start start, double first);

  OrderPoint at(double t);

 private:
  /// The lowest point that is found from starts off the line, if it is clearly below the line. The nearest starts come
  /// first: a curve that is tangent to the line is nearer than what is not.
  std::optional<Minimum> escaped(const at::Tensor& base, double straight, const MinimumOptions& options) const;

  const Line& line_;
  Landscape& landscape_;
  const OrderOptions& options_;
  double floor_;
  Start start_;
  Complement complement_;
  at::Tensor v_;
  double last_, power_ = 2;  ///< |v| ~ |t|^power
};

/// A K below zero beside w* itself, with |v| <= radius: w* is no minimum. Empty if a few steps of descent find none
/// that is below `least`.
std::optional<double> descent_beside(const Line& line, Landscape& landscape, double radius, double least);

}  // namespace dds
