// Dead axes as subspaces: how far two of them are apart, which of them come and go over a training, and which weights
// they leave free.
//
// A dead axis is a unit vector in the space of a layer's features along which no row has a component (Signature::
// dead_axes). Singular vectors of equal singular values are determined up to a rotation only, so single axes are never
// compared: everything here is about the subspaces that they span.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <map>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// Principal angles between two subspaces, and the vectors that make them.
struct PrincipalAngles {
  std::vector<double> angles;  ///< min(k, l) of them in radians, ascending, within [0, pi/2]
  at::Tensor first;            ///< k x d: a basis of the first subspace; row i makes angle i with row i of `second`
  at::Tensor second;           ///< l x d: of the second; rows beyond the angles are orthogonal to the first subspace
};

/// Between the row spaces of `a` (k x d) and `b` (l x d), both with orthonormal rows (to 1e-6), any floating dtype and
/// device; computed in fp64, returned on the CPU. Angles up to pi/4 from their sines, larger ones from their cosines
/// (Bjoerck and Golub 1973; Knyazev and Argentati 2002), since either alone loses half of the digits at one end: error
/// at most 20 sqrt(d) u, u = 2^-53, for bases orthonormal to rounding. Two checkpoints of one layer can be compared,
/// and two layers where the one's output is the other's input. Throws InvalidArgument for other shapes, different d, or
/// rows that are not orthonormal.
PrincipalAngles principal_angles(const at::Tensor& a, const at::Tensor& b);

/// What happened to the dead axes of one series between two readings.
struct DeadAxesChange {
  SeriesId series;
  std::int64_t from = 0, to = 0;  ///< steps
  std::int64_t kept = 0;          ///< dimensions of the old dead subspace that are dead still
  std::int64_t born = 0;          ///< new dead dimensions
  std::int64_t revived = 0;       ///< dimensions that were dead and are not any more
  std::vector<double> angles;     ///< principal angles between the two dead subspaces
  at::Tensor born_axes;           ///< born x d, orthonormal, fp64, CPU
  at::Tensor revived_axes;        ///< revived x d, orthonormal, fp64, CPU
};

/// Follows the dead subspaces of any number of series over a training. A Monitor has one for readings with dead axes,
/// whose counts are in the log; the subspaces themselves come from one of the caller's own behind a sink:
///   dds::log::callback([&](const dds::Signature& s) { if (s.dead_axes.defined()) use(tracker.add(s)); })
///
/// The rule: a dimension is kept if its principal angle to the earlier dead subspace is below `threshold`. At pi/4, the
/// default, it lies nearer to that subspace than to its complement. What is not kept is born in the later subspace and
/// revived in the earlier one, so kept + born and kept + revived are the two dimensions. A subspace that turns slowly
/// is kept however far it goes; DeadAxesChange::angles tell how fast.
class DeadAxesTracker {
 public:
  /// Throws InvalidArgument unless 0 < threshold <= pi/2.
  explicit DeadAxesTracker(double threshold = 0.78539816339744830962);

  /// Adds a reading that was made with ReadingOptions::dead_axes. Empty for the first of its series, for one that has
  /// no numbers, and after the layer's width changed (the series then begins anew). Throws InvalidArgument for a
  /// reading without dead axes.
  std::optional<DeadAxesChange> add(const Signature& signature);

 private:
  struct Last {
    std::int64_t step;
    at::Tensor axes;
  };
  double threshold_;
  std::map<SeriesId, Last> last_;
};

/// The weights that dead axes leave free: the image of a dead subspace U (k axes) in the space of a layer's weight W
/// (d_out x d_in, or d_out x d_in x ... for a convolution).
///
///   Side::Input    no row of the layer's input has a component along u: W + v u^T gives the same output for every v,
///   so
///                  these are flat directions of any loss on these rows, of every order. k d_out dimensions.
///   Side::Fisher   no gradient delta_i has a component along u: along W + u a^T every per-sample loss is stationary,
///   for
///                  every a, so the Fisher metric vanishes there. k d_in dimensions, and k more in the bias.
///
/// Side::Activation has no image in its own layer's weight; its axes are those of the next layer's input.
class WeightImage {
 public:
  /// `axes`: k x d, orthonormal rows, fp64, CPU, as Signature::dead_axes. Throws InvalidArgument for Side::Activation
  /// and for other shapes.
  WeightImage(Side side, at::Tensor axes);

  /// Dimension of the image in the weight.
  std::int64_t dimension(const at::Tensor& weight) const;

  /// Share of each unit's weights that is free, shape (d), in [0, 1]: for Side::Input unit j is column j of W, for
  /// Side::Fisher row j of W and entry j of the bias. Sums to k. A dead ReLU unit has 1.
  at::Tensor shares() const;

  /// The part of a matrix of the weight's shape (an update, a gradient, the weight itself) that lies in the image: D U
  /// U^T or U U^T D. fp64, CPU. Error at most 10 sqrt(d) u |D|.
  at::Tensor project(const at::Tensor& matrix) const;

 private:
  void check(const at::Tensor& weight) const;

  Side side_;
  at::Tensor axes_;
};

}  // namespace dds
