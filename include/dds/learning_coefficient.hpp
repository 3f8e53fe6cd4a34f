// Learning coefficients that are known exactly. Estimates of the LLC are tested against them.
//
// K(w) >= 0 is the expected loss less its minimum. For any density of weights w that is positive where K = 0,
//
//   volume of {K < eps}            ~  eps^lambda (log 1/eps)^(m - 1)     as eps -> 0
//   integral of exp(-n K(w)) dw    ~  n^-lambda (log n)^(m - 1)          as n -> infinity
//
// lambda is the learning coefficient, m its multiplicity (Watanabe 2009).
//
// The functions give the smallest lambda over all minima. A single minimum can have a larger one. Example: reduced-rank
// regression with widths 2, 2, 2 and rank 0 has lambda = 2 at W_1 = identity, W_2 = 0. The smallest, 1.5, is at
// W_1 = W_2 = 0.
// Linear networks attain the smallest at the minimum-norm point W_l = diag(1, .., 1, 0, .., 0), with r ones.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <span>

namespace DDS_EXPORT dds {

/// lambda and its multiplicity m.
struct LearningCoefficient {
  double lambda = 0;
  std::int64_t multiplicity = 1;

  friend bool operator==(const LearningCoefficient&, const LearningCoefficient&) = default;
};

/// A regular model of d parameters: lambda = d/2, m = 1.
/// Throws InvalidArgument for d < 0.
LearningCoefficient regular_coefficient(std::int64_t parameters);

/// A normal crossing: K(w) = prod_i w_i^(2 k_i), under a density that vanishes like prod_i |w_i|^(h_i).
///   lambda = min_i (h_i + 1) / (2 k_i) over the i with k_i > 0,   m = how many i attain it
///
/// An empty `h` stands for zeros.
/// Error: none in m, which is found in integer arithmetic. lambda is the fraction rounded to double.
/// Valid input: exponents from 0 to 2^20, some k_i > 0, h empty or as long as k.
/// Throws InvalidArgument for any other.
LearningCoefficient normal_crossing_coefficient(std::span<const std::int64_t> k, std::span<const std::int64_t> h = {});

/// The four cases of reduced-rank regression (Aoyagi and Watanabe 2005): M inputs, H hidden units, N outputs, rank r.
enum class ReducedRankCase {
  Balanced = 1,    ///< N + r <= M + H, M + r <= N + H, H + r <= M + N
  WideOutput = 2,  ///< M + H < N + r
  WideInput = 3,   ///< N + H < M + r
  WideHidden = 4   ///< M + N < H + r: W_2 W_1 can be any matrix
};
/// The case that the widths fall in. Valid input, throws: as `reduced_rank_coefficient`.
ReducedRankCase reduced_rank_case(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, std::int64_t rank);

/// Reduced-rank regression y = W_2 W_1 x + noise. W_1 is H x M, W_2 is N x H. The true W_2 W_1 has rank r. The inputs
/// have a covariance of full rank. By ReducedRankCase, with e = (M + H + N + r) mod 2 (Aoyagi and Watanabe 2005):
///
///   1. lambda = (2 (H + r)(M + N) - (M - N)^2 - (H + r)^2 + e) / 8,   m = 1 + e
///   2. lambda = (H M - H r + N r) / 2,                                m = 1
///   3. lambda = (H N - H r + M r) / 2,                                m = 1
///   4. lambda = M N / 2,                                              m = 1
///
/// Error: none. lambda is a multiple of 1/2.
/// Valid input: widths from 1 to 2^20, rank from 0 to the smallest width.
/// Throws InvalidArgument for any other.
LearningCoefficient reduced_rank_coefficient(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs,
                                             std::int64_t rank);

/// A deep linear network y = W_L ... W_1 x + noise of widths H_0 .. H_L, whose true product has rank r (Aoyagi 2024).
///
/// Sort D_s = H_s - r in ascending order. Let S be the sum of the first l + 1 of them. Take the smallest l >= 1 with
///   S >= l D_i for the last D_i in the sum, and S < l D_i for the next D_i, if there is one.
/// With K = ceil(S / l) and a = S - (K - 1) l:
///
///   lambda = (r (H_0 + H_L) - r^2) / 2 + a (l - a) / (4 l) - (l - 1) S^2 / (4 l) + (1/2) sum_{i < j} D_i D_j
///   m      = a (l - a) + 1,
///
/// i and j over the first l + 1.
/// Error: none. lambda is a multiple of 1/2.
/// Valid input: 2 to 1001 widths, each from 1 to 2^20, rank from 0 to the smallest width.
/// Throws InvalidArgument for any other.
LearningCoefficient deep_linear_coefficient(std::span<const std::int64_t> widths, std::int64_t rank);

}  // namespace dds
