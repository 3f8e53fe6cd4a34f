// Dead subspaces: the angles between two of them, and the weights that they leave free. <dds/dead_axes_tracker.hpp>
// follows them over a training.
//
// A dead axis is a unit vector in the space of a layer's features along which no row has a component
// (Signature::dead_axes). Singular vectors of equal singular values are determined only up to a rotation. So axes are
// not compared one by one, but through the subspace that they span.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <vector>

namespace DDS_EXPORT dds {

/// Principal angles between two subspaces, and their principal vectors.
struct PrincipalAngles {
  std::vector<double> angles;  ///< min(k, l) angles in radians, ascending, within [0, pi/2]
  at::Tensor first;   ///< k x d: orthonormal basis of the first subspace; row i makes angle i with row i of `second`
  at::Tensor second;  ///< l x d: the same of the second; in either, rows beyond min(k, l) are orthogonal to the other
};

/// The principal angles between the row spaces of `a` (k x d) and `b` (l x d). Examples: dead axes of one layer at two
/// checkpoints; of the output of one layer and the input of the next.
///
/// Angles up to pi/4 come from their sines, larger ones from their cosines (Bjoerck and Golub 1973; Knyazev and
/// Argentati 2002). Either alone loses half of the digits at one end of [0, pi/2].
/// Valid input: rows orthonormal to 1e-6, any floating dtype and device.
/// Result: fp64, CPU.
/// Error: at most 20 sqrt(d) 2^-53, for bases that are orthonormal to rounding.
/// Throws InvalidArgument for other shapes, different d, or rows that are not orthonormal.
PrincipalAngles principal_angles(const at::Tensor& a, const at::Tensor& b);

/// The weights that dead axes leave free: the image of a dead subspace (k axes u) in the space of a layer's weight W
/// (d_out x d_in, or d_out x d_in x ... for a convolution).
///
///   Side::Input    No row of the layer's input has a component along u. So W + v u^T gives the same output for every
///                  v: any loss on these rows is flat along v u^T, to every order. Dimension k d_out.
///   Side::Fisher   No gradient delta_i has a component along u. So every per-sample loss is stationary at W along
///                  u a^T, for every a: the Fisher metric vanishes there. Dimension k d_in, and k in the bias.
///
/// For a convolution, each position of the kernel counts: dimension k d_out or k d_in, times the size of the kernel.
/// Side::Activation has no image in the weight of its own layer: its axes belong to the next layer's input.
class WeightImage {
 public:
  /// Valid input: `axes` k x d, rows orthonormal to 1e-6, such as Signature::dead_axes. Any floating dtype and device.
  /// Throws InvalidArgument for Side::Activation, for other shapes, and for rows that are not orthonormal.
  WeightImage(Side side, at::Tensor axes);

  /// Dimension of the image in the weight, without the bias.
  /// Throws InvalidArgument if the weight does not have d inputs (Side::Input) or d outputs (Side::Fisher).
  std::int64_t dimension(const at::Tensor& weight) const;

  /// The free share of each unit's weights: sum over the axes u of u_j^2. A dead ReLU unit has 1.
  /// Unit j is column j of W for Side::Input; row j of W and entry j of the bias for Side::Fisher.
  /// Result: shape (d), each in [0, 1], with sum k. fp64, CPU.
  at::Tensor shares() const;

  /// The part of D that lies in the image. D has the weight's shape: an update, a gradient, the weight itself.
  ///   D U U^T for Side::Input,   U U^T D for Side::Fisher,   with the axes as the columns of U.
  /// Result: fp64, CPU.
  /// Error: at most 10 sqrt(d) 2^-53 |D|.
  /// Throws InvalidArgument as `dimension`.
  at::Tensor project(const at::Tensor& matrix) const;

 private:
  void check(const at::Tensor& weight) const;

  Side side_;
  at::Tensor axes_;
};

}  // namespace dds
