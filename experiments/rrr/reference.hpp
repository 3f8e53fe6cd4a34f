// What an estimate would be if it were exact: lambda_hat = n beta E[K(w)] under exp(-n beta K(w) - gamma/2 |w - w*|^2)
// at a given gamma and n beta. Nothing here shares code with the library's samplers or has a step size.
#pragma once

#include <optional>

#include "experiments/rrr/regression.hpp"

namespace rrr {

struct Reference {
  double lambda = 0;
  double standard_error = 0;  ///< of Gibbs sampling, over its chains
};

/// By quadrature where there is one, else by Gibbs sampling.
Reference reference(const Cell& cell, double gamma, double n_beta, std::uint64_t seed);

/// For linear networks: K = |W_L ... W_1 - W*|^2 / 2 (inputs of unit covariance), w* the minimum-norm point, W* its
/// product.
///
/// K is quadratic in each layer while the others stand: with P and Q the products above and below it, P^T P = U a U^T
/// and Q Q^T = V b V^T, the entries of U^T W V are independent and Gaussian, with precisions n beta a_i b_j + gamma.
/// Layers are drawn in turn, and K is averaged in closed form over the one that is drawn. Chains start at w*; the first
/// quarter of their sweeps does not count.
Reference gibbs(const Cell& cell, double gamma, double n_beta, std::uint64_t seed);

/// By sums over a grid; empty for other cells:
/// - a normal crossing of one or two weights;
/// - two layers of rank 0 with min(H, N) <= 2. With the weights in units of gamma^(-1/2) and nu = n beta / gamma^2 the
///   partition function is
///     Z(nu) = E exp(-nu |B A|^2 / 2) = E prod_i (1 + nu s_i^2)^(-M/2),   A, B standard normal,
///   s the singular values of B with their density prod_i s_i^|N - H| e^(-s_i^2/2) prod_{i<j} |s_i^2 - s_j^2|, and what
///   is sought is -d log Z / d log nu.
std::optional<double> quadrature(const Cell& cell, double gamma, double n_beta);

}  // namespace rrr
