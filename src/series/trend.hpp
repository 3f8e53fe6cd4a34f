// Whether a series of one eigenvalue falls along a curve in time, or only wanders.
#pragma once

#include <span>

namespace dds {

/// Standard deviation of what is independent from one value to the next, by second differences:
///   sqrt(mean (y_(i-1) - 2 y_i + y_(i+1))^2 / 6)
/// A smooth curve leaves nothing of itself in it. 0 for fewer than three values.
double noise_of(std::span<const double> y);

/// What a smooth fall in time leaves of y, as a share of `fall`, beyond noise: the root mean square of the residual of
/// the best of
///   y = a + b s + c s^2                     a line, or one that bends
///   y = a + b max(0, s - s0) + c max(0, s - s0)^2   the same after an onset
///   y = a + b log(1 + s / s0)               a power law
/// with s = step - first step. A half sine over the run leaves at least 0.04, a random walk more.
double unexplained(std::span<const double> steps, std::span<const double> y, double fall);

}  // namespace dds
