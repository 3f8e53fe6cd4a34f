// Lines and means with intervals: against closed forms, and by how often the interval covers the truth.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <dds/fit.hpp>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "src/theory/quantile.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;
using Values = std::vector<double>;

/// P(|T| <= t) for Student's T of 3 and of 4 degrees of freedom.
double student3(double t) {
  const double a = std::atan(t / std::sqrt(3.0));
  return 2 / std::numbers::pi * (a + std::sin(a) * std::cos(a));
}
double student4(double t) {
  const double s = t / std::sqrt(4 + t * t);
  return 1.5 * s - 0.5 * s * s * s;
}
template <class Distribution>
double inverse(const Distribution& distribution, double p) {
  double low = 0, high = 100;
  for (int i = 0; i < 80; ++i) (distribution((low + high) / 2) < p ? low : high) = (low + high) / 2;
  return low;
}

TEST(Quantile, StudentAgreesWithTheClosedFormsWithinItsBound) {
  for (const auto& [confidence, bound] : {std::pair(0.8, 0.002), {0.95, 0.002}, {0.99, 0.008}}) {
    const double t3 = inverse(student3, confidence), t4 = inverse(student4, confidence);
    EXPECT_NEAR(student_quantile(confidence, 3) / t3, 1, bound) << confidence;
    EXPECT_NEAR(student_quantile(confidence, 4) / t4, 1, bound) << confidence;
    EXPECT_NEAR(student_quantile(confidence, 1e9), normal_quantile(confidence), 1e-6);
    EXPECT_NEAR(std::erf(normal_quantile(confidence) / std::sqrt(2.0)), confidence, 1e-12);
  }
}

TEST(LineFit, IsExactOnALine) {
  Values x, y;
  for (int i = 0; i < 9; ++i) {
    x.push_back(-0.7 - 0.125 * i);
    y.push_back(3 + 10 * x.back());
  }
  const LineFit fit = fit_line(x, y);
  EXPECT_NEAR(fit.slope, 10, 1e-12);
  EXPECT_NEAR(fit.intercept, 3, 1e-11);
  EXPECT_LT(fit.high - fit.low, 1e-10);
  EXPECT_EQ(fit.n, 9);
}

/// Share of `runs` noisy lines whose interval holds the slope; noise of lag-1 correlation `a`.
double coverage(double a, int n, int runs) {
  std::mt19937 random(static_cast<unsigned>(test::seed(11)));
  std::normal_distribution<double> normal;
  int covered = 0;
  for (int run = 0; run < runs; ++run) {
    Values x, y;
    double noise = normal(random);
    for (int i = 0; i < n; ++i) {
      x.push_back(0.1 * i);
      y.push_back(1 + 2 * x.back() + 0.3 * noise);
      noise = a * noise + std::sqrt(1 - a * a) * normal(random);
    }
    const LineFit fit = fit_line(x, y);
    covered += fit.low <= 2 && 2 <= fit.high;
  }
  return static_cast<double>(covered) / runs;
}

TEST(LineFit, TheIntervalCoversTheSlopeAsOftenAsItSays) {
  EXPECT_NEAR(coverage(0, 12, 8000), 0.96, 0.02);
  EXPECT_NEAR(coverage(0, 60, 8000), 0.955, 0.02);
  // Residuals show less of a strong correlation than the noise has: a short series covers less.
  EXPECT_GT(coverage(0.6, 100, 8000), 0.90);
}

TEST(MeanEstimate, IsStudentsInterval) {
  const Values values{1, 2, 3, 6};
  const MeanEstimate mean = estimate_mean(values);
  EXPECT_DOUBLE_EQ(mean.mean, 3);
  EXPECT_DOUBLE_EQ(mean.standard_error, std::sqrt(14.0 / 3 / 4));
  EXPECT_NEAR(mean.high - 3, 3.182 * mean.standard_error, 0.01);
  EXPECT_NEAR(mean.low + mean.high, 6, 1e-12);
}

TEST(LineFit, BadInputIsNamed) {
  const Values five{1, 2, 3, 4, 5}, flat(5, 2.0);
  Values broken = five;
  broken[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(message_of([&] { fit_line(five, Values{1, 2}); }), HasSubstr("the size of y is 2, expected 5"));
  EXPECT_THAT(message_of([&] { fit_line(Values{1, 2}, Values{1, 2}); }), HasSubstr("the size of x is 2"));
  EXPECT_THAT(message_of([&] { fit_line(five, broken); }), HasSubstr("y[3] is nan"));
  EXPECT_THAT(message_of([&] { fit_line(flat, five); }), HasSubstr("every x is 2"));
  EXPECT_THAT(message_of([&] { fit_line(five, five, 1); }), HasSubstr("confidence is 1"));
  EXPECT_THAT(message_of([&] { estimate_mean(Values{1, 2, 3}); }), HasSubstr("the size of values is 3"));
  EXPECT_THAT(message_of([&] { estimate_mean(broken); }), HasSubstr("values[3] is nan"));
}

}  // namespace
}  // namespace dds
