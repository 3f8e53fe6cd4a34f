// What an estimate would be if it were exact: lambda_hat at a given gamma and n beta, by Gibbs sampling. It shares no
// code with the library's samplers, has no step size, and nothing in it is approximate but the number of its draws.
#pragma once

#include "experiments/rrr/regression.hpp"

namespace rrr {

struct Reference {
  double lambda = 0;
  double standard_error = 0;  ///< over the chains
};

/// n beta E[K(w)], K = |W_L ... W_1 - W*|^2 / 2, under exp(-n beta K(w) - gamma/2 |w - w*|^2), with w* the minimum-norm
/// point and W* its product (inputs of unit covariance).
///
/// K is quadratic in each layer while the others stand: with P and Q the products above and below it, P^T P = U a U^T
/// and Q Q^T = V b V^T, the entries of U^T W V are independent and Gaussian, with precisions n beta a_i b_j + gamma.
/// Layers are drawn in turn, and K is averaged in closed form over the one that is drawn. Chains start at w*; the first
/// quarter of their sweeps does not count.
Reference reference(const Cell& cell, double gamma, double n_beta, std::uint64_t seed);

}  // namespace rrr
