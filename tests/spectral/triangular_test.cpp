#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <functional>
#include <numeric>
#include <string>

#include "tests/support.hpp"

namespace dds {
namespace {

using test::hadamard;
using test::orthonormal;

constexpr double kUnit = 0x1p-53;
// The bound that TriangularAccumulator documents, in units of u sigma_max.
double documented_bound(std::int64_t width) { return 10 * std::sqrt(static_cast<double>(width)); }

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

struct Family {
  std::string name;
  std::function<at::Tensor(std::int64_t n, std::int64_t d)> rows;
};
void PrintTo(const Family& family, std::ostream* os) { *os << family.name; }

at::Tensor with_spectrum(std::int64_t n, std::int64_t d, const at::Tensor& sigma) {
  return torch::matmul(orthonormal(n, d) * sigma, orthonormal(d, d).t());
}

class Accuracy : public testing::TestWithParam<Family> {};

// Reference: one-shot LAPACK SVD of all the rows, itself accurate to a small multiple of u sigma_max.
TEST_P(Accuracy, OfStreamedRowsInAnyBatchesIsWithinTheDocumentedBound) {
  for (const auto& [n, d] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{2000, 16}, {1500, 70}, {40, 64}, {1, 8}, {700, 1}}) {
    torch::manual_seed(n + d);
    const at::Tensor rows = GetParam().rows(n, d);
    const at::Tensor reference = torch::linalg_svdvals(rows);
    const double* values = reference.data_ptr<double>();
    const std::vector<double> expected(values, values + reference.numel());
    const double bound = 2 * documented_bound(d) * kUnit * expected.front();  // the reference has its own share
    for (const std::int64_t batch : {std::int64_t{1} + n / 3, std::int64_t{137}, n}) {
      TriangularAccumulator forward(d), backward(d), left(d), right(d);
      std::int64_t number = 0;
      for (std::int64_t begin = 0; begin < n; begin += batch, ++number) {
        const at::Tensor part = rows.slice(0, begin, std::min(n, begin + batch));
        forward.update(part);
        (number % 2 == 0 ? left : right).update(part);
        backward.update(rows.slice(0, std::max<std::int64_t>(0, n - begin - batch), n - begin));
      }
      left.merge(right);
      for (const TriangularAccumulator* accumulator : {&forward, &backward, &left}) {
        EXPECT_EQ(accumulator->rows(), n);
        EXPECT_LE(largest_difference(singular_values(*accumulator), expected), bound)
            << n << " x " << d << " by " << batch;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, Accuracy,
    testing::Values(
        Family{"gaussian",
               [](std::int64_t n, std::int64_t d) {
                 return torch::randn({n, d}, torch::kDouble);
               }},
        Family{"geometric",
               [](std::int64_t n, std::int64_t d) {
                 return n < d ? torch::randn({n, d}, torch::kDouble)
                              : with_spectrum(n, d, torch::logspace(0, -15, d, 10.0, torch::kDouble));
               }},
        Family{"clustered",
               [](std::int64_t n, std::int64_t d) {
                 const at::Tensor sigma = 1 + 1e-10 * torch::rand({d}, torch::kDouble);
                 return n < d ? torch::ones({n, d}, torch::kDouble) : with_spectrum(n, d, sigma);
               }},
        Family{"rank one",
               [](std::int64_t n, std::int64_t d) {
                 return torch::outer(torch::randn(n, torch::kDouble), torch::randn(d, torch::kDouble));
               }},
        Family{"column scaled",
               [](std::int64_t n, std::int64_t d) {
                 return torch::randn({n, d}, torch::kDouble) * torch::logspace(0, -14, d, 10.0, torch::kDouble);
               }},
        Family{"row scaled",
               [](std::int64_t n, std::int64_t d) {
                 return torch::randn({n, d}, torch::kDouble) *
                        torch::logspace(-12, 0, n, 10.0, torch::kDouble).unsqueeze(1);
               }},
        Family{"lauchli",
               [](std::int64_t n, std::int64_t d) {
                 at::Tensor rows = torch::zeros({n, d}, torch::kDouble);
                 rows[0].fill_(1);
                 for (std::int64_t i = 0; i + 1 < n && i < d; ++i) rows[i + 1][i] = 1e-9;
                 return rows;
               }}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

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
  accumulator.update(torch::zeros({600, 8}, torch::kDouble));
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
  torch::manual_seed(0);
  const at::Tensor rows = torch::randn({1300, 5}, torch::kDouble);
  TriangularAccumulator accumulator(5);
  accumulator.update(rows);
  accumulator.merge(accumulator);
  EXPECT_EQ(accumulator.rows(), 2600);
  EXPECT_LT(largest_difference(singular_values(accumulator), singular_values(torch::cat({rows, rows}))), 1e-12);
}

TEST(TriangularAccumulator, TakesAllFloatingTypesAsTheirValues) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kHalf, torch::kBFloat16}) {
    const at::Tensor rows = torch::randn({600, 7}, torch::kDouble).to(dtype);
    EXPECT_LT(largest_difference(singular_values(rows), singular_values(rows.to(torch::kDouble))), 1e-13);
  }
}

TEST(TriangularAccumulator, CopiesWhatItBuffers) {
  torch::manual_seed(0);
  at::Tensor rows = torch::randn({9, 4}, torch::kDouble);
  TriangularAccumulator accumulator(4);
  accumulator.update(rows);
  const std::vector<double> before = singular_values(accumulator);
  rows.zero_();
  EXPECT_EQ(singular_values(accumulator), before);
}

class NonFinite : public testing::TestWithParam<double> {};

TEST_P(NonFinite, AnywhereGivesNoNumbers) {
  for (const std::int64_t place : {0, 511, 512, 1999}) {
    at::Tensor rows = torch::ones({2000, 3}, torch::kDouble);
    rows[place][1] = GetParam();
    TriangularAccumulator accumulator(3);
    accumulator.update(rows);
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
  EXPECT_THAT(message([&] { accumulator.factor(); }), testing::HasSubstr("no rows"));
  EXPECT_THAT(message([&] { accumulator.merge(TriangularAccumulator(2)); }), testing::HasSubstr("width 2"));
}

}  // namespace
}  // namespace dds
