// Dead axes as subspaces: the angles between two of them, and the weights that they leave free.
// <dds/dead_axes_tracker.hpp> tells which of them come and go over a training.
//
// A dead axis is a unit vector in the space of a layer's features along which no row has a component
// (Signature::dead_axes). Singular vectors of equal singular values are determined up to a rotation only. So single
// axes are never compared: everything here is about the subspaces that they span.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <vector>

namespace DDS_EXPORT dds {

/// Principal angles between two subspaces, and the vectors that make them.
struct PrincipalAngles {
  std::vector<double> angles;  ///< min(k, l) of them in radians, ascending, within [0, pi/2]
  at::Tensor first;            ///< k x d: a basis of the first subspace; row i makes angle i with row i of `second`
  at::Tensor second;           ///< l x d: of the second; rows beyond the angles are orthogonal to the first subspace
};

/// The principal angles between the row spaces of `a` (k x d) and `b` (l x d): of two checkpoints of one layer, say, or
/// of two layers where the output of one is the input of the other.
///
/// Angles up to pi/4 come from their sines, larger ones from their cosines (Bjoerck and Golub 1973; Knyazev and
/// Argentati 2002). Either alone loses half of the digits at one end.
/// Input: rows orthonormal to 1e-6, any floating dtype and device. Computed in fp64.
/// Result: on the CPU.
/// Error: at most 20 sqrt(d) u, u = 2^-53, for bases that are orthonormal to rounding.
/// Throws InvalidArgument for other shapes, different d, or rows that are not orthonormal.
PrincipalAngles principal_angles(const at::Tensor& a, const at::Tensor& b);

/// The weights that dead axes leave free: the image of a dead subspace U (k axes) in the space of a layer's weight W
/// (d_out x d_in, or d_out x d_in x ... for a convolution).
///
///   Side::Input    No row of the layer's input has a component along u, so W + v u^T gives the same output for
///                  every v: a flat direction of any loss on these rows, of every order. Dimension k d_out.
///   Side::Fisher   No gradient delta_i has a component along u, so along W + u a^T every per-sample loss is
///                  stationary, for every a: the Fisher metric vanishes. Dimension k d_in, and k in the bias.
///
/// Side::Activation has no image in the weight of its own layer: its axes are those of the next layer's input.
class WeightImage {
 public:
  /// `axes`: k x d with orthonormal rows, fp64, CPU, as Signature::dead_axes.
  /// Throws InvalidArgument for Side::Activation and for other shapes.
  WeightImage(Side side, at::Tensor axes);

  /// Dimension of the image in the weight.
  std::int64_t dimension(const at::Tensor& weight) const;

  /// The share of each unit's weights that is free: sum over the axes u of u_j^2, shape (d), each in [0, 1], k in all.
  /// For Side::Input unit j is column j of W; for Side::Fisher it is row j of W and entry j of the bias. A dead ReLU
  /// unit has 1.
  at::Tensor shares() const;

  /// The part of a matrix D of the weight's shape (an update, a gradient, the weight itself) that lies in the image:
  /// D U U^T for Side::Input, U U^T D for Side::Fisher, with the axes as the columns of U.
  /// Result: fp64, CPU. Error: at most 10 sqrt(d) u |D|.
  at::Tensor project(const at::Tensor& matrix) const;

 private:
  void check(const at::Tensor& weight) const;

  Side side_;
  at::Tensor axes_;
};

}  // namespace dds
