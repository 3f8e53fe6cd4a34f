#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <dds/window.hpp>
#include <random>
#include <sstream>
#include <string>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::hadamard;

std::vector<double> singular_values(const TriangularAccumulator& accumulator) {
  const Spectrum spectrum = read_spectrum(accumulator);
  std::vector<double> sigma;
  for (const double s : spectrum.sigma) sigma.push_back(std::ldexp(s, spectrum.exponent));
  return sigma;
}

std::vector<double> singular_values(const at::Tensor& rows) {
  TriangularAccumulator accumulator(rows.size(1));
  accumulator.update(rows);
  return singular_values(accumulator);
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

/// Scaled columns of a Hadamard matrix are exact in fp64, and so are their singular values sqrt(n) 2^-k.
struct Graded {
  at::Tensor rows;
  std::vector<double> sigma;  // descending
};
Graded graded(int log_rows, std::int64_t columns, double octaves_per_column) {
  Graded matrix;
  std::vector<double> scales;
  for (std::int64_t k = 0; k < columns; ++k)
    scales.push_back(std::exp2(-std::round(octaves_per_column * static_cast<double>(k))));
  const at::Tensor scale = torch::tensor(scales, torch::kDouble);
  matrix.rows = hadamard(log_rows).slice(1, 0, columns) * scale;
  for (const double s : scales) matrix.sigma.push_back(std::sqrt(std::exp2(log_rows)) * s);
  return matrix;
}

TEST(TriangularAccumulator, ResolvesThirtyOrdersOfMagnitudeInLambda) {
  // sigma from 1 to 2^-50: lambda from 1 to 8e-31. The eigenvalues of the Gram matrix end at lambda = 1e-16.
  const Graded matrix = graded(12, 26, 2.0);
  const std::vector<double> sigma = singular_values(matrix.rows);
  ASSERT_EQ(sigma.size(), matrix.sigma.size());
  EXPECT_LT(sigma.back() / sigma.front(), 1e-15);
  for (std::size_t i = 0; i < sigma.size(); ++i) EXPECT_NEAR(sigma[i] / matrix.sigma[i], 1.0, 0.05) << i;
}

class Scale : public testing::TestWithParam<double> {};

TEST_P(Scale, ScalesTheSingularValuesAndNothingElse) {
  const double scale = GetParam();
  const Graded matrix = graded(10, 12, 3.0);
  const std::vector<double> plain = singular_values(matrix.rows);
  const std::vector<double> scaled = singular_values(matrix.rows * scale);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(scaled[i] / scale, plain[i], 1e-14 * plain[0]) << i;
}

INSTANTIATE_TEST_SUITE_P(Powers, Scale, testing::Values(1e-290, 1e-160, 1e-30, 1e30, 1e160, 1e290));

TEST(TriangularAccumulator, MergesBlocksOfUnequalScale) {
  const Graded matrix = graded(10, 8, 1.0);
  TriangularAccumulator accumulator(8);
  accumulator.update(matrix.rows * 1e-200);
  accumulator.update(matrix.rows * 1e200);
  const std::vector<double> sigma = singular_values(accumulator);
  for (std::size_t i = 0; i < sigma.size(); ++i)
    EXPECT_NEAR(sigma[i] / 1e200, matrix.sigma[i], 1e-13 * matrix.sigma[0]);
}

TEST(TriangularAccumulator, ZeroBlocksDoNotHideTinyOnes) {
  const Graded matrix = graded(10, 8, 1.0);
  TriangularAccumulator accumulator(8);
  accumulator.update(torch::zeros({4096, 8}, torch::kDouble));  // a block of their own
  accumulator.update(matrix.rows * 1e-200);
  Signature signature;
  signature.structural_bound = 8;
  read_numbers(read_spectrum(accumulator), torch::kDouble, signature);
  EXPECT_EQ(signature.rank, 8);
  EXPECT_NEAR(*signature.sigma_max / 1e-200, matrix.sigma[0], 1e-13 * matrix.sigma[0]);
  EXPECT_TRUE(std::isfinite(*signature.log10_trace));
  EXPECT_GE(*signature.stable_rank, 1);
}

TEST(TriangularAccumulator, MergesWithItselfAsTheRowsTwice) {
  torch::manual_seed(test::seed(0));
  const at::Tensor rows = torch::randn({1300, 5}, torch::kDouble);
  TriangularAccumulator accumulator(5);
  accumulator.update(rows);
  accumulator.merge(accumulator);
  EXPECT_EQ(accumulator.rows(), 2600);
  EXPECT_LT(largest_difference(singular_values(accumulator), singular_values(torch::cat({rows, rows}))), 1e-12);
}

TEST(TriangularAccumulator, TakesAllFloatingTypesAsTheirValues) {
  torch::manual_seed(test::seed(0));
  for (const auto dtype : {torch::kFloat, torch::kHalf, torch::kBFloat16}) {
    const at::Tensor rows = torch::randn({600, 7}, torch::kDouble).to(dtype);
    EXPECT_LT(largest_difference(singular_values(rows), singular_values(rows.to(torch::kDouble))), 1e-13);
  }
}

// Blocks long enough to be factorised as they come, of every type and layout that a layer hands over.
TEST(TriangularAccumulator, TakesAnyLayoutAtAnyScale) {
  torch::manual_seed(test::seed(0));
  const at::Tensor values = torch::randn({5003, 20}, torch::kDouble);
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    const at::Tensor rounded = values.to(dtype);
    const std::vector<double> expected = singular_values(rounded.to(torch::kDouble));
    const at::Tensor layouts[] = {rounded.t().contiguous().t(), torch::stack({rounded, rounded}, 2).select(2, 1),
                                  torch::cat({rounded, rounded}, 1).narrow(1, 20, 20)};
    for (const at::Tensor& rows : layouts) {
      ASSERT_FALSE(rows.is_contiguous());
      EXPECT_LT(largest_difference(singular_values(rows), expected), 1e-13 * expected.front());
    }
  }
  // Blocks on either side of the scales that are left as they are.
  for (const double one : {1e-25, 1e-18, 1.0, 1e18, 1e25}) {
    for (const double other : {1e-25, 1e-18, 1.0, 1e18, 1e25}) {
      TriangularAccumulator accumulator(20);
      accumulator.update(values * one);
      accumulator.update(values * other);
      const double scale = std::hypot(one, other);
      const std::vector<double> sigma = singular_values(accumulator), expected = singular_values(values);
      for (std::size_t i = 0; i < sigma.size(); ++i) {
        EXPECT_NEAR(sigma[i] / scale, expected[i], 1e-13 * expected[0]) << one << " " << other;
      }
    }
  }
}

TEST(TriangularAccumulator, CopiesWhatItBuffers) {
  torch::manual_seed(test::seed(0));
  at::Tensor rows = torch::randn({9, 4}, torch::kDouble);
  TriangularAccumulator accumulator(4);
  accumulator.update(rows);
  const std::vector<double> before = singular_values(accumulator);
  rows.zero_();
  EXPECT_EQ(singular_values(accumulator), before);
}

class NonFinite : public testing::TestWithParam<double> {};

TEST_P(NonFinite, AnywhereGivesNoNumbers) {
  for (const std::int64_t place : {0, 4095, 4096, 8999}) {
    at::Tensor rows = torch::ones({9000, 3}, torch::kDouble);
    rows[place][1] = GetParam();
    TriangularAccumulator accumulator(3);
    for (std::int64_t begin = 0; begin < 9000; begin += 500) accumulator.update(rows.narrow(0, begin, 500));
    const Spectrum spectrum = read_spectrum(accumulator, /*vectors=*/true);
    EXPECT_FALSE(spectrum.finite);
    EXPECT_TRUE(spectrum.sigma.empty());
    Signature signature;
    signature.structural_bound = 3;
    read_numbers(spectrum, torch::kDouble, signature);
    EXPECT_EQ(to_string(signature.status), "non_finite");
    EXPECT_FALSE(signature.sigma_max.has_value());
    EXPECT_FALSE(signature.logdet_plus.has_value());
  }
}

INSTANTIATE_TEST_SUITE_P(Values, NonFinite, testing::Values(NAN, INFINITY, -INFINITY));

TEST(TriangularAccumulator, NamesWhatIsWrong) {
  EXPECT_THROW(TriangularAccumulator(0), InvalidArgument);
  TriangularAccumulator accumulator(3);
  const auto message = [&](auto call) -> std::string {
    try {
      call();
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message([&] { accumulator.update(torch::ones({2, 4})); }), testing::HasSubstr("[2, 4]"));
  EXPECT_THAT(message([&] { accumulator.update(torch::ones({2, 3}, torch::kLong)); }), testing::HasSubstr("Long"));
  EXPECT_THAT(message([&] { accumulator.update(torch::ones({3})); }), testing::HasSubstr("3 columns"));
  EXPECT_THAT(message([&] { accumulator.update({}); }), testing::HasSubstr("undefined"));
  EXPECT_THAT(message([&] { accumulator.factor(); }), testing::HasSubstr("rows is 0"));
  EXPECT_THAT(message([&] { accumulator.merge(TriangularAccumulator(2)); }), testing::HasSubstr("width is 2"));
}

TEST(TriangularAccumulator, AMillionRowsInAnyBatchesGiveTheSameFactor) {
  torch::manual_seed(test::seed(0));
  const at::Tensor rows = torch::randn({1'000'000, 8}) * torch::logspace(0, -6, 8);
  const std::vector<double> whole = singular_values(rows);
  for (const std::int64_t longest : {700, 5000, 400'000}) {
    TriangularAccumulator accumulator(8);
    std::mt19937_64 engine(test::seed(longest));
    std::uniform_int_distribution<std::int64_t> size(0, longest);
    for (std::int64_t begin = 0; begin < rows.size(0);) {
      const std::int64_t count = std::min(size(engine), rows.size(0) - begin);
      accumulator.update(rows.narrow(0, begin, count));
      begin += count;
    }
    EXPECT_EQ(accumulator.rows(), rows.size(0));
    EXPECT_LT(largest_difference(singular_values(accumulator), whole), 1e-12 * whole.front());
  }
}

// ---- saved and loaded ----

class Saved : public testing::TestWithParam<std::int64_t> {};

TEST_P(Saved, GoesOnBitForBit) {
  torch::manual_seed(test::seed(0));
  const at::Tensor before = torch::randn({GetParam(), 6}), after = torch::randn({3000, 6});
  TriangularAccumulator original(6);
  for (std::int64_t begin = 0; begin < before.size(0); begin += 100) {
    original.update(before.narrow(0, begin, std::min<std::int64_t>(100, before.size(0) - begin)));
  }
  std::stringstream file;
  torch::save(original.state(), file);
  std::vector<at::Tensor> state;
  torch::load(state, file);
  TriangularAccumulator loaded = TriangularAccumulator::from_state(state);
  EXPECT_EQ(loaded.rows(), original.rows());
  for (TriangularAccumulator* accumulator : {&original, &loaded}) accumulator->update(after);
  EXPECT_EQ(singular_values(loaded), singular_values(original));
}

INSTANTIATE_TEST_SUITE_P(Rows, Saved, testing::Values(0, 1, 4095, 4096, 18000, 32768));

TEST(TriangularAccumulator, RefusesAStateThatItDidNotMake) {
  TriangularAccumulator accumulator(4);
  accumulator.update(torch::ones({5000, 4}));
  const std::vector<at::Tensor> good = accumulator.state();
  const auto message = [&](std::size_t place, const at::Tensor& tensor) {
    std::vector<at::Tensor> bad = good;
    bad[place] = tensor;
    return test::message_of([&] { TriangularAccumulator::from_state(bad); });
  };
  EXPECT_THAT(test::message_of([] { TriangularAccumulator::from_state({}); }),
              testing::HasSubstr("tensors is 0, expected at least 2"));
  EXPECT_THAT(message(0, torch::ones({3})), testing::HasSubstr("tensor 0 is Float [3]"));
  EXPECT_THAT(message(0, torch::tensor({5, 5000, 3}, torch::kLong)), testing::HasSubstr("expected Double [up to"));
  EXPECT_THAT(message(0, torch::tensor({4, 0, 1}, torch::kLong)),
              testing::HasSubstr("the number of rows in the header is 0"));
  EXPECT_THAT(message(0, torch::tensor({4, 5000, 0}, torch::kLong)), testing::HasSubstr("expected 2"));
  EXPECT_THAT(message(1, {}), testing::HasSubstr("undefined"));
  EXPECT_THAT(message(2, torch::ones({9, 4}, torch::kDouble)), testing::HasSubstr("Double [9, 4]"));
  EXPECT_THAT(message(3, torch::ones({2}, torch::kDouble)), testing::HasSubstr("expected Double []"));
}

TEST(TriangularAccumulator, RefusesAnotherDevice) {
  TriangularAccumulator accumulator(3);
  accumulator.update(torch::ones({2, 3}));
  EXPECT_THAT(test::message_of([&] {
                accumulator.update(torch::ones({2, 3}, torch::kMeta));
              }),
              testing::HasSubstr("the device of rows is 'meta', expected cpu"));
  EXPECT_EQ(accumulator.rows(), 2);
}

TEST(TriangularAccumulator, ACopyIsIndependent) {
  torch::manual_seed(test::seed(0));
  TriangularAccumulator original(3);
  original.update(torch::randn({10, 3}));
  original.update(torch::randn({10, 3}));
  const std::vector<double> before = singular_values(original);
  TriangularAccumulator copy = original;
  copy.update(torch::randn({10, 3}));
  EXPECT_EQ(singular_values(original), before);
  original.update(torch::zeros({10, 3}));
  EXPECT_EQ(copy.rows(), 30);
  EXPECT_NE(singular_values(copy), singular_values(original));
}

// ---- windows ----

class Window : public testing::TestWithParam<std::int64_t> {};

TEST_P(Window, HoldsTheLastRowsAndNoTraceOfOthers) {
  torch::manual_seed(test::seed(GetParam()));
  TriangularWindow window(GetParam());
  std::vector<at::Tensor> pushed;
  for (int i = 0; i < 12; ++i) {
    // What left the window was 1e8 times as large: any trace of it would show.
    pushed.push_back(torch::randn({5 + i, 7}, torch::kDouble) * (i < 6 ? 1e8 : 1.0));
    TriangularAccumulator accumulator(7);
    accumulator.update(pushed.back());
    window.push(accumulator);
    const std::int64_t held = std::min<std::int64_t>(GetParam(), i + 1);
    EXPECT_EQ(window.size(), held);
    const at::Tensor rows = torch::cat(std::vector<at::Tensor>(pushed.end() - held, pushed.end()));
    const TriangularAccumulator all = window.all();
    EXPECT_EQ(all.rows(), rows.size(0));
    const std::vector<double> expected = singular_values(rows);
    EXPECT_LT(largest_difference(singular_values(all), expected), 10 * std::sqrt(7) * 0x1p-53 * expected.front()) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Capacities, Window, testing::Values(1, 2, 3, 5, 12, 40));

TEST(TriangularWindow, BeginsAnewWithAnotherWidthAndNamesWhatIsWrong) {
  TriangularWindow window(3);
  EXPECT_THAT(test::message_of([&] { window.all(); }), testing::HasSubstr("size is 0"));
  EXPECT_THAT(test::message_of([&] { window.push(TriangularAccumulator(2)); }),
              testing::HasSubstr("the number of rows is 0"));
  EXPECT_THAT(test::message_of([] { TriangularWindow(0); }), testing::HasSubstr("capacity is 0"));
  TriangularAccumulator two(2), three(3);
  two.update(torch::ones({4, 2}));
  three.update(torch::ones({5, 3}));
  window.push(two);
  window.push(three);
  EXPECT_EQ(window.all().width(), 3);
  EXPECT_EQ(window.all().rows(), 5);
}

}  // namespace
}  // namespace dds
