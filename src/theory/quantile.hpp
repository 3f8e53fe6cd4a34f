// Quantiles that intervals are made of.
#pragma once

namespace dds {

/// z with P(|N(0, 1)| <= z) = confidence, by bisection.
double normal_quantile(double confidence);

/// t with P(|T| <= t) = confidence for Student's T of so many degrees of freedom, at least 3: the expansion about the
/// normal quantile (Abramowitz and Stegun 26.7.5), within 0.2 % of t at a confidence of 0.95 and 0.8 % at 0.99.
double student_quantile(double confidence, double degrees);

}  // namespace dds
