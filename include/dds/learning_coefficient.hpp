// Learning coefficients that are known exactly: what an estimate of the LLC is held against.
//
// With K(w) >= 0 the excess of the loss over its minimum, the volume of {K < eps} falls as eps^lambda (log 1/eps)^(m -
// 1) and the integral of exp(-n K(w)) over the weights as n^-lambda (log n)^(m - 1), for any density of weights that is
// positive where K = 0. lambda is the learning coefficient, m its multiplicity (Watanabe 2009). A regular model has
// lambda = d/2, m = 1.
//
// The numbers here are those of the whole set of minima: the smallest lambda over them. At one minimum it can be
// larger. Of reduced-rank regression with widths 2, 2, 2 and rank 0 the minimum W_1 = 1, W_2 = 0 has lambda = 2, and
// the smallest, at W_1 = W_2 = 0, is 1.5. For linear networks the smallest is taken at the minimum-norm point W_l =
// diag(1, .., 1, 0, ..) with r ones.
#pragma once

#include <cstdint>
#include <dds/export.hpp>
#include <span>

namespace DDS_EXPORT dds {

struct LearningCoefficient {
  double lambda = 0;
  std::int64_t multiplicity = 1;

  friend bool operator==(const LearningCoefficient&, const LearningCoefficient&) = default;
};

/// A regular model of so many parameters: d/2. Throws InvalidArgument for a negative number.
LearningCoefficient regular_coefficient(std::int64_t parameters);

/// K(w) = prod_i w_i^(2 k_i) under a density that vanishes like prod_i |w_i|^(h_i):
///   lambda = min_i (h_i + 1) / (2 k_i) over the i with k_i > 0,   m = how many i attain it.
/// `h` may be empty: all zero. m is decided in whole numbers; lambda is the double next to the fraction. Throws
/// InvalidArgument for exponents that are negative or all zero, above 2^20, or if h has another length than k.
LearningCoefficient normal_crossing_coefficient(std::span<const std::int64_t> k, std::span<const std::int64_t> h = {});

/// The four cases of reduced-rank regression (Aoyagi and Watanabe 2005).
enum class ReducedRankCase {
  Balanced = 1,    ///< N + r <= M + H, M + r <= N + H, H + r <= M + N
  WideOutput = 2,  ///< M + H < N + r
  WideInput = 3,   ///< N + H < M + r
  WideHidden = 4   ///< M + N < H + r: the product can be any matrix, lambda = M N / 2
};
ReducedRankCase reduced_rank_case(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, std::int64_t rank);

/// Reduced-rank regression y = W_2 W_1 x + noise, W_1: H x M, W_2: N x H, the true W_2 W_1 of rank r, inputs of full
/// covariance. With e = (M + H + N + r) mod 2 (Aoyagi and Watanabe 2005):
///   1. lambda = (2 (H + r)(M + N) - (M - N)^2 - (H + r)^2 + e) / 8, m = 1 + e
///   2. lambda = (H M - H r + N r) / 2, m = 1     3. lambda = (H N - H r + M r) / 2, m = 1     4. lambda = M N / 2, m =
///   1
/// A multiple of 1/2, so exact. Both functions throw InvalidArgument for a width outside 1 to 2^20 or a rank outside 0
/// to the smallest width.
LearningCoefficient reduced_rank_coefficient(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs,
                                             std::int64_t rank);

/// Deep linear network y = W_L ... W_1 x + noise of widths H_0 .. H_L whose true product has rank r (Aoyagi 2024). With
/// D_s = H_s - r in ascending order take the first prefix of length l + 1 >= 2 whose sum S is at least l times its last
/// and, unless it is all of them, below l times the next; K = ceil(S / l), a = S - (K - 1) l:
///   lambda = (r (H_0 + H_L) - r^2) / 2 + a (l - a) / (4 l) - (l - 1) S^2 / (4 l) + (1/2) sum_{i < j in the prefix} D_i
///   D_j m = a (l - a) + 1
/// A multiple of 1/2, so exact. Throws InvalidArgument for fewer than 2 or more than 1001 widths, a width outside 1 to
/// 2^20, or a rank outside 0 to the smallest width.
LearningCoefficient deep_linear_coefficient(std::span<const std::int64_t> widths, std::int64_t rank);

}  // namespace dds
