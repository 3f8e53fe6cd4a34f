// The sums of a least-squares line.
#pragma once

#include <span>

namespace dds {

/// Means, and sums of products about them: the slope of the line is xy / xx.
struct CentredSums {
  double mean_x, mean_y, xx, xy;
};

/// Of points (x_i, y_i), at least one. Both series have one length.
CentredSums centred_sums(std::span<const double> x, std::span<const double> y);

}  // namespace dds
