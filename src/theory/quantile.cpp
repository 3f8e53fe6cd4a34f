#include "src/theory/quantile.hpp"

#include <cmath>

namespace dds {

double normal_quantile(double confidence) {
  double low = 0;
  double high = 40;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) > 1 - confidence ? low : high) = middle;
  }
  return high;
}

double student_quantile(double confidence, double degrees) {
  const double z = normal_quantile(confidence), q = z * z, v = degrees;
  const double g1 = z * (q + 1) / 4;
  const double g2 = z * ((5 * q + 16) * q + 3) / 96;
  const double g3 = z * (((3 * q + 19) * q + 17) * q - 15) / 384;
  const double g4 = z * ((((79 * q + 776) * q + 1482) * q - 1920) * q - 945) / 92160;
  return z + (g1 + (g2 + (g3 + g4 / v) / v) / v) / v;
}

}  // namespace dds
