// K along a line, and at the lowest points beside it: the points that an order is fitted to.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/order.hpp>
#include <optional>
#include <vector>

#include "src/theory/flat.hpp"
#include "src/theory/landscape.hpp"
#include "src/theory/minimum.hpp"

namespace dds {

/// w* + t u, u of length 1.
struct Line {
  at::Tensor point, direction;
  at::Tensor at(double t) const { return point.add(direction.mul(t)); }
};

/// Which K of a point: on the line, or at the lowest point beside it.
using Branch = double OrderPoint::*;

inline constexpr double kGauge = 1e3;  ///< floors: a K at or below is zero

/// Whether the search at a point ended at the rim of the cone: it says neither how low K is nor how far off.
bool is_cut_off(const OrderPoint& point, const OrderOptions& options);

/// Whether the lowest points leave the line along a curve that is tangent to it. At least `least` of the points must
/// say so, and half of those where K on the line is no rounding.
bool is_tangent(const std::vector<OrderPoint>& points, const OrderOptions& options, double floor,
                std::size_t least = 5);

/// Whether K is zero up to rounding at all points that are not cut off.
bool all_zero(const std::vector<OrderPoint>& points, Branch branch, const OrderOptions& options, double floor);

/// K on one side of the line and at the lowest points beside it. The minimiser at the last t starts the search at the
/// next.
class Valley {
 public:
  /// Starts on the line, at v = 0. Minimisers are scaled as a parabola is. `first` is the |t| that is asked for first.
  Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, double first);
  /// Starts from v beside w* + t u, off the line. Minimisers are scaled by the power of |t| that makes K lowest.
  Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, double t, at::Tensor v);

  OrderPoint at(double t);

 private:
  double power_at(const at::Tensor& base, double ratio);

  const Line* line_;
  Landscape* landscape_;
  const OrderOptions* options_;
  double floor_;
  Complement complement_;
  at::Tensor v_;
  double last_, power_ = 2;  ///< |v| ~ |t|^power
  bool beside_, scaled_ = false;
};

/// A curve of low points that is tangent to one side of the line.
struct Curve {
  std::vector<OrderPoint> points;  ///< from the outermost t inwards
  Valley valley;                   ///< as the last of them left it
};

/// The lowest curve beside the side `sign` of the line, at these distances, the largest first. It is searched from
/// starts in the flat directions beside the outermost point, since v = 0 may be stationary by symmetry alone. Empty if
/// nothing there is clearly below the line, or if what is goes off at an angle.
std::optional<Curve> curve_beside(const Line& line, Landscape& landscape, const Flat& flat, const OrderOptions& options,
                                  double floor, double sign, const std::vector<double>& distances);

/// A K below -`least` near w*: it is no minimum. On rays in the flat directions, and where a few steps of descent lead
/// from them, at a distance of `far` and less. Empty if there is none.
std::optional<double> descent_beside(Landscape& landscape, const at::Tensor& point, const Flat& flat, double near,
                                     double far, double least);

}  // namespace dds
