// What the experiment estimates: networks and potentials whose learning coefficient is known, their data and
// minimisers.
#pragma once

#include <cstdint>
#include <dds/dds.hpp>
#include <string>
#include <vector>

#include "experiments/harness/networks.hpp"

namespace rrr {

/// A linear network y = W_L ... W_1 x + noise of widths H_0 .. H_L whose true product has rank r; or, where `powers` is
/// not empty, the potential K(w) = prod_i w_i^(2 k_i).
struct Cell {
  std::vector<std::int64_t> widths;
  std::int64_t rank = 0;
  std::vector<std::int64_t> powers = {};

  bool crossing() const { return !powers.empty(); }
  std::int64_t inputs() const { return widths.front(); }
  std::int64_t outputs() const { return widths.back(); }
  bool two_layers() const { return widths.size() == 3; }
  std::int64_t hidden() const { return widths[1]; }  ///< of two layers
  std::int64_t parameters() const;
  dds::LearningCoefficient exact() const;
  /// "M_N_H_r" for two layers; "H0_H1_.._HL_rR" for more; "K_k1_k2" for a potential.
  std::string name() const;
};

/// M = 10, N = 5, H in 2 .. 5, r in 1 .. H: the paper's, all of case 3.
std::vector<Cell> paper_cells();
/// Cells of all four cases, multiplicities 1 and 2 in the balanced one.
std::vector<Cell> case_cells();
/// Deep networks of 3 to 6 layers; `large`: with large_cells().
std::vector<Cell> deep_cells(bool large);
/// Deep networks of 7,000 and 99,372 weights.
std::vector<Cell> large_cells();
/// Normal crossings of one or two weights, multiplicities 1 and 2.
std::vector<Cell> crossing_cells();

/// K = prod_i w_i^(2 k_i) as the excess of a Gaussian likelihood over targets 0, at w = 0; it looks at the number of
/// its inputs only.
struct CrossingImpl : torch::nn::Module {
  explicit CrossingImpl(const std::vector<std::int64_t>& powers);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor powers, w;
};
TORCH_MODULE(Crossing);

/// Weights W_1 .. W_L, fp64.
using Weights = std::vector<torch::Tensor>;

dds::experiments::DeepLinear network(const Cell& cell, const Weights& weights);

/// W_l = diag(1, .., 1, 0, ..) with r ones: the minimum-norm point of the true parameters whose product is the same.
Weights minimum_norm_point(const Cell& cell);

/// A loss over n samples of a linear network depends on them through X^T X / n and Y^T X / n alone. These are H_0 rows
/// with the same loss, up to a constant: mean_i |y_i - P x_i|^2 / 2 for every matrix P.
dds::Data compressed(const torch::Tensor& covariance, const torch::Tensor& least_squares);

/// Samples X (n x M), Y = X W^T + sigma * noise.
struct Samples {
  torch::Tensor x, y;
  torch::Tensor covariance() const;     ///< X^T X / n
  torch::Tensor least_squares() const;  ///< N x M: Y^T X (X^T X)^-1
};

/// The minimiser of the squared loss over products of rank H (two layers): the truncated singular value decomposition
/// of the least-squares solution in the metric of the covariance, split evenly between the layers.
Weights minimiser(const Samples& samples, std::int64_t hidden);

}  // namespace rrr
