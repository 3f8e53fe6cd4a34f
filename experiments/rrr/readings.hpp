// Dead-Direction Signatures of the paper's cells at minimisers that were found in different ways.
#pragma once

#include <map>

#include "experiments/rrr/regression.hpp"

namespace rrr {

/// How a cell's network got its weights. All noise is N(0, 1), the truth has r singular values 1, n = 7500.
///   exact        the minimiser in closed form; all cells see the same inputs and the same noise
///   independent  the same, inputs and noise drawn anew for every cell
///   steps_K      K steps of gradient descent from small random weights, same inputs and noise
inline constexpr const char* kExact = "exact";
inline constexpr const char* kIndependent = "independent";
inline const std::vector<std::int64_t> kDescentSteps = {100, 200, 400, 1000, 3000};
std::string steps_name(std::int64_t steps);

/// One network's numbers, of the layers h1 (hidden) and h2 (output). The Fisher side is empirical: for squared errors
/// the true Fisher at the output is the identity whatever the network.
struct Reading {
  std::string minimiser;
  std::uint64_t seed = 0;
  std::size_t cell = 0;  ///< of paper_cells()
  std::map<std::string, double> values;
};

/// What is read:
///   sigma_min_h2             smallest singular value of X_h2, rounding noise where the network has fewer units than
///   outputs sigma_min_h2_ties        the same with 0 for what lies at or below the floor, so that those cells tie
///   sigma_fixed_h2           the second singular value of X_h2: the rank that every cell has
///   log_lambda_min_h2        log10 of lambda_min+(G_h2)
///   logdet_h2, logdet_h1     log det+ of G
///   sigma_min_h1             smallest singular value of X_h1
std::vector<Reading> readings(std::uint64_t seed);

}  // namespace rrr
