// How far a series of one eigenvalue moves, and whether it falls along a curve in time or only wanders.
#pragma once

#include <span>

namespace dds {

inline constexpr std::size_t kEnd = 3;  ///< readings whose median stands for an end of a series

/// The upper median. At least one value.
double median(std::span<const double> values);

/// The highest of the medians of kEnd neighbours.
double highest_of(std::span<const double> series);

/// Decades between the ends of a series of at least kEnd values.
double fall(std::span<const double> series);

/// How far a series moves beyond its noise: the largest distance between its two ends and the medians of its four
/// quarters, less three standard deviations of what noise makes of it.
double moved(std::span<const double> series);

/// Whether a series ends above its start, and falls by less than `still` beyond noise at any time before.
bool only_rises(std::span<const double> series, double still);

/// Standard deviation of what is independent from one value to the next, by second differences:
///   sqrt(mean (y_(i-1) - 2 y_i + y_(i+1))^2 / 6)
/// A smooth curve leaves nothing of itself in it. 0 for fewer than three values.
double noise_of(std::span<const double> y);

/// Whether the values rise so seldom that a walk without a drift hardly ever does (1 in 200): the sign test.
bool rarely_rises(std::span<const double> y);

/// What a smooth fall in time leaves of y, as a share of `fall`, beyond noise: the root mean square of the residual of
/// the best of
///   y = a + b s + c s^2                     a line, or one that bends
///   y = a + b max(0, s - s0) + c max(0, s - s0)^2   the same after an onset
///   y = a + b log(1 + s / s0)               a power law
/// with s = step - first step. A half sine over the run leaves at least 0.04, a random walk more.
double unexplained(std::span<const double> steps, std::span<const double> y, double fall);

}  // namespace dds
