// Fourier modes of the group of residues mod p: which of them a network has learned, and whether the others lie in the
// dead directions of its residual stream.
#pragma once

#include <cstdint>
#include <vector>

#include "experiments/modular_addition/network.hpp"

namespace modular_addition {

/// By frequency k = 1 .. (p-1)/2.
struct Modes {
  /// Of the logits over all pairs, what is of the form cos(2 pi k (a + b - c) / p + phase), as a share of their
  /// variance over a, b and c.
  std::vector<double> logit_power;
  /// Of what a token adds to resid_mid where attention is uniform (W_O W_V W_E, by token), the squared length of the
  /// mode's two vectors, as a share of that of all modes.
  std::vector<double> stream_power;
  /// Of that squared length, the share that lies in the dead directions of the gradients at resid_mid, and of the
  /// activations there: those right singular vectors that follow when the others hold 99.9 % of tr(G), or of the
  /// variance.
  std::vector<double> dead_fisher, dead_activation;
  /// Dimensions of those directions over the width: what a direction at random has.
  double dead_fisher_dimension = 0, dead_activation_dimension = 0;

  /// Frequencies that the network has learned: the fewest whose logit_power adds up to 95 % of the sum over k.
  std::vector<bool> learned() const;
};

/// Orthonormal real Fourier basis of functions on residues mod p without the constant, (p-1) x p, fp64: rows 2k-2 and
/// 2k-1 are cos and sin of frequency k.
torch::Tensor fourier_basis(std::int64_t p);

/// `logits`: p^2 x p over all pairs, a the slower index.
std::vector<double> logit_power(const torch::Tensor& logits);

/// The last rows of V^T of a matrix's singular value decomposition, those that hold at most `share` of the sum of its
/// squares together.
torch::Tensor dead_rows(const torch::Tensor& matrix, double share);

/// `tokens`, `sums`: all pairs, and `train` the indices of those that the gradients are of.
Modes modes_of(const Transformer& model, const torch::Tensor& tokens, const torch::Tensor& sums,
               const torch::Tensor& train);

}  // namespace modular_addition
