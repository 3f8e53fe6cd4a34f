// What the engine documents of its errors, held against singular values computed in long double (u = 5e-20) by Eigen.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SVD>
#include <cmath>
#include <dds/spectrum.hpp>
#include <functional>
#include <string>

#include "src/spectral/solver.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

constexpr double kUnit = 0x1p-53;
constexpr double kStated = 10;  // in units of sqrt(d) u sigma_max, as read_spectra says

using Matrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Values = std::vector<long double>;

Values reference(const at::Tensor& rows) {
  const at::Tensor values = rows.to(torch::kDouble).contiguous();
  const auto entries = Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
      values.data_ptr<double>(), values.size(0), values.size(1));
  Matrix matrix = entries.cast<long double>();
  if (matrix.rows() < matrix.cols()) matrix.transposeInPlace();
  const long double largest = matrix.cwiseAbs().maxCoeff();
  if (largest == 0) return Values(static_cast<std::size_t>(matrix.cols()), 0);
  matrix /= largest;
  const Eigen::HouseholderQR<Matrix> qr(matrix);
  const Matrix triangle = qr.matrixQR().topRows(matrix.cols()).triangularView<Eigen::Upper>();
  const Eigen::JacobiSVD<Matrix> svd(triangle);
  Values sigma;
  for (const long double s : svd.singularValues()) sigma.push_back(s * largest);
  return sigma;
}

Values values_of(const Spectrum& spectrum) {
  Values sigma;
  for (const double s : spectrum.sigma) sigma.push_back(std::ldexp(static_cast<long double>(s), spectrum.exponent));
  return sigma;
}

/// Largest error of a singular value in units of sqrt(d) u sigma_max.
double error_of(const Values& measured, const Values& exact, std::int64_t width) {
  EXPECT_EQ(measured.size(), exact.size());
  long double largest = 0;
  for (std::size_t i = 0; i < std::min(measured.size(), exact.size()); ++i) {
    largest = std::max(largest, std::abs(measured[i] - exact[i]));
  }
  if (largest == 0) return 0;
  return static_cast<double>(largest / (std::sqrt(static_cast<long double>(width)) * kUnit * exact.front()));
}

TriangularAccumulator streamed(const at::Tensor& rows, std::int64_t batch) {
  TriangularAccumulator accumulator(rows.size(1));
  for (std::int64_t begin = 0; begin < rows.size(0); begin += batch) {
    accumulator.update(rows.narrow(0, begin, std::min(batch, rows.size(0) - begin)));
  }
  return accumulator;
}

struct Family {
  std::string name;
  std::function<at::Tensor(std::int64_t n, std::int64_t d)> rows;
  double scale = 1;          ///< for rows of fp64
  double scale_shorter = 1;  ///< for rows of a type with the range of fp32
};
void PrintTo(const Family& family, std::ostream* os) { *os << family.name; }

at::Tensor gaussian(std::int64_t n, std::int64_t d) { return torch::randn({n, d}, torch::kDouble); }

at::Tensor with_spectrum(std::int64_t n, std::int64_t d, const at::Tensor& sigma) {
  return torch::matmul(test::orthonormal(n, d) * sigma, test::orthonormal(d, d).t());
}

std::vector<Family> families() {
  const auto logspace = [](double from, double to, std::int64_t n) {
    return torch::logspace(from, to, n, 10.0, torch::kDouble);
  };
  const auto graded = [=](std::int64_t n, std::int64_t d) { return with_spectrum(n, d, logspace(0, -15, d)); };
  return {
      {"gaussian", gaussian},
      {"graded", graded},
      {"column_scaled", [=](auto n, auto d) { return gaussian(n, d) * logspace(0, -14, d); }},
      {"row_scaled", [=](auto n, auto d) { return gaussian(n, d) * logspace(-12, 0, n).unsqueeze(1); }},
      {"clustered", [](auto n, auto d) { return with_spectrum(n, d, 1 + 1e-10 * torch::rand({d}, torch::kDouble)); }},
      {"two_clusters",
       [](auto n, auto d) {
         at::Tensor sigma = torch::ones({d}, torch::kDouble);
         sigma.narrow(0, d / 2, d - d / 2).mul_(1e-12);
         return with_spectrum(n, d, sigma);
       }},
      {"rank_deficient", [](auto n, auto d) { return gaussian(n, d / 3 + 1).mm(gaussian(d / 3 + 1, d)); }},
      {"rank_one", [](auto n, auto d) { return gaussian(n, 1).mm(gaussian(1, d)); }},
      {"zero_columns",
       [](auto n, auto d) {
         at::Tensor rows = gaussian(n, d);
         rows.narrow(1, 0, d / 2).zero_();
         return rows;
       }},
      {"kahan",  // s^i on the diagonal, -c s^i to its right: QR without pivoting shows nothing of its rank
       [](auto n, auto d) {
         const double s = std::sin(1.2), c = std::cos(1.2);
         const at::Tensor scale = torch::pow(s, torch::arange(d, torch::kDouble)).unsqueeze(1);
         const at::Tensor kahan =
             (torch::eye(d, torch::kDouble) - c * torch::ones({d, d}, torch::kDouble).triu(1)) * scale;
         return torch::cat({kahan, torch::zeros({n - d, d}, torch::kDouble)});
       }},
      {"lauchli",
       [](auto n, auto d) {
         at::Tensor rows = torch::zeros({n, d}, torch::kDouble);
         rows[0].fill_(1);
         rows.narrow(0, 1, d).diagonal().fill_(1e-9);
         return rows;
       }},
      {"hilbert",
       [](auto n, auto d) {
         return 1 / (torch::arange(n, torch::kDouble).unsqueeze(1) + torch::arange(d, torch::kDouble) + 1);
       }},
      {"denormal", gaussian, 1e-310, 1e-41},
      {"tiny", graded, 1e-160, 1e-30},
      {"huge", graded, 1e160, 1e30},
      {"one_row", [](auto, auto d) { return gaussian(1, d); }},
      {"wide", [](auto, auto d) { return gaussian(d / 2, d); }},
      {"wide_graded", [=](auto, auto d) { return with_spectrum(d, d / 2, logspace(0, -15, d / 2)).t(); }},
  };
}

class Accuracy : public testing::TestWithParam<std::tuple<Family, torch::Dtype, torch::DeviceType>> {};

TEST_P(Accuracy, OfSingularValuesIsAsStated) {
  const auto& [family, dtype, device] = GetParam();
  if (device == torch::kCUDA && !torch::cuda::is_available()) GTEST_SKIP() << "there is no CUDA device";
  double worst = 0;
  for (const auto& [n, d] : std::vector<std::pair<std::int64_t, std::int64_t>>{{5000, 12}, {3000, 40}, {90, 80}}) {
    torch::manual_seed(test::seed(n + d));
    const double scale = dtype == torch::kDouble ? family.scale : family.scale_shorter;
    const at::Tensor rows = (family.rows(n, d) * scale).to(dtype);
    const Values exact = reference(rows);
    TriangularAccumulator left(d), right(d);
    const std::int64_t half = rows.size(0) / 2;
    if (half > 0) left.update(rows.narrow(0, 0, half).to(device));
    right.update(rows.narrow(0, half, rows.size(0) - half).to(device));
    left.merge(right);
    const TriangularAccumulator small = streamed(rows.to(device), 137), large = streamed(rows.to(device), 2500);
    for (const bool vectors : {false, true}) {
      for (const Spectrum& spectrum : read_spectra({&small, &large, &left}, vectors)) {
        ASSERT_TRUE(spectrum.finite);
        worst = std::max(worst, error_of(values_of(spectrum), exact, d));
        if (!vectors) continue;
        const at::Tensor gram = spectrum.right.mm(spectrum.right.t());
        EXPECT_LT((gram - torch::eye(d, torch::kDouble)).abs().max().template item<double>(),
                  2 * kStated * std::sqrt(d) * kUnit);
      }
    }
  }
  fmt::print("{:15} {:8} {:5} error {:6.3f} of stated {} sqrt(d) u sigma_max\n", family.name, c10::toString(dtype),
             c10::DeviceTypeName(device, /*lower_case=*/true), worst, kStated);
  EXPECT_LE(worst, kStated);
}

INSTANTIATE_TEST_SUITE_P(Families, Accuracy,
                         testing::Combine(testing::ValuesIn(families()),
                                          testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16),
                                          testing::Values(torch::kCPU, torch::kCUDA)),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{}", std::get<0>(info.param).name,
                                              c10::toString(std::get<1>(info.param)),
                                              c10::DeviceTypeName(std::get<2>(info.param), true));
                         });

// A Hadamard matrix with scaled columns is exact, and so are its singular values sqrt(n) 2^-k.
TEST(Accuracy, AQuotientOf1e15IsResolvedToTenPercent) {
  constexpr std::int64_t kColumns = 51;
  const at::Tensor scale = torch::exp2(-torch::arange(kColumns, torch::kDouble));
  const at::Tensor rows = test::hadamard(12).narrow(1, 0, kColumns) * scale;
  const TriangularAccumulator accumulator = streamed(rows, 100);
  const Spectrum spectrum = read_spectrum(accumulator);
  EXPECT_LT(spectrum.sigma.back() / spectrum.sigma.front(), 1e-15);
  for (std::size_t k = 0; k < kColumns; ++k) {
    EXPECT_NEAR(spectrum.sigma[k] / spectrum.sigma[0], std::exp2(-static_cast<double>(k)),
                0.1 * std::exp2(-static_cast<double>(k)));
  }
}

// ---- the solver that cannot fail ----

TEST(Accuracy, OfTheJacobiIterationIsAsStated) {
  for (const Family& family : families()) {
    torch::manual_seed(test::seed(1));
    const at::Tensor rows = family.rows(60, 30) * family.scale;
    const Values exact = reference(rows);
    TriangularAccumulator accumulator(30);
    accumulator.update(rows);
    const auto fails = [](const at::Tensor&, bool) -> Decomposition { TORCH_CHECK(false, "did not converge"); };
    const Spectrum spectrum = read_spectra({&accumulator}, true, fails).front();
    EXPECT_TRUE(spectrum.retried) << family.name;
    EXPECT_LE(error_of(values_of(spectrum), exact, 30), kStated) << family.name;
    const at::Tensor& right = spectrum.right;
    EXPECT_LT((right.mm(right.t()) - torch::eye(30, torch::kDouble)).abs().max().item<double>(), 1e-13) << family.name;
    // The vectors belong to the values: |M v_k| = sigma_k.
    const double largest = rows.abs().max().item<double>();  // divided by, since the squares of some leave the range
    const at::Tensor lengths = (rows / largest).mm(right.t()).norm(2, 0);
    for (std::size_t k = 0; k < exact.size(); ++k) {
      EXPECT_NEAR(lengths[static_cast<std::int64_t>(k)].item<double>() / static_cast<double>(exact[0] / largest),
                  static_cast<double>(exact[k] / exact[0]), 1e-13)
          << family.name;
    }
  }
}

// A matrix that is too wide for all of its right singular vectors has those of its rows, some of them of no row.
TEST(Accuracy, OfTheVectorsOfAWideMatrixIsAsStated) {
  torch::manual_seed(test::seed(4));
  constexpr std::int64_t n = 6, d = Spectrum::kMostAxes + 50;
  const at::Tensor rows = gaussian(n, 4).mm(gaussian(4, d));
  TriangularAccumulator accumulator(d);
  accumulator.update(rows);
  const auto fails = [](const at::Tensor&, bool) -> Decomposition { TORCH_CHECK(false, "did not converge"); };
  for (const Spectrum& spectrum :
       {read_spectrum(accumulator, true), read_spectra({&accumulator}, true, fails).front()}) {
    ASSERT_EQ(spectrum.right.sizes(), (std::vector<std::int64_t>{n, d}));
    const double u = 0x1p-53, bound = 20 * std::sqrt(d) * u;
    EXPECT_LT((spectrum.right.mm(spectrum.right.t()) - torch::eye(n, torch::kDouble)).abs().max().item<double>(),
              bound);
    const at::Tensor lengths = rows.mm(spectrum.right.t()).norm(2, 0);
    const double largest = std::ldexp(spectrum.sigma.front(), spectrum.exponent);
    for (std::int64_t k = 0; k < n; ++k) {
      EXPECT_NEAR(lengths[k].item<double>(), std::ldexp(spectrum.sigma[k], spectrum.exponent), bound * largest) << k;
    }
    EXPECT_GT(spectrum.sigma[3], 1e-3 * spectrum.sigma[0]);
    EXPECT_LT(spectrum.sigma[4], 1e-13 * spectrum.sigma[0]);
    Signature signature;
    read_numbers(spectrum, torch::kDouble, signature);
    EXPECT_THROW(dead_axes(spectrum, signature), InvalidArgument);
  }
}

enum class Failure { Throws, GivesNan };
class FailingSolver : public testing::TestWithParam<Failure> {};

// One bad matrix in a batch, as on a GPU: the others keep their readings, and this one gets its from the safe solver.
TEST_P(FailingSolver, ReachesNobody) {
  torch::manual_seed(test::seed(2));
  std::vector<TriangularAccumulator> accumulators;
  for (int i = 0; i < 3; ++i) {
    accumulators.emplace_back(6);
    accumulators.back().update(i == 1 ? gaussian(50, 2).mm(gaussian(2, 6)) : gaussian(50, 6));
  }
  const auto low_rank = [](const at::Tensor& sigma) { return sigma.select(-1, 4).lt(1e-12 * sigma.select(-1, 0)); };
  const auto solver = [&](const at::Tensor& matrices, bool vectors) {
    Decomposition result = library_svd(matrices, vectors);
    const at::Tensor bad = low_rank(result.sigma);
    if (GetParam() == Failure::Throws) TORCH_CHECK(!bad.any().template item<bool>(), "did not converge");
    result.sigma.masked_fill_(bad.unsqueeze(-1), NAN);
    return result;
  };
  const std::vector<Spectrum> spectra =
      read_spectra({&accumulators[0], &accumulators[1], &accumulators[2]}, false, solver);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(spectra[i].retried, i == 1);
    const Spectrum plain = read_spectrum(accumulators[i]);
    for (std::size_t k = 0; k < 6; ++k) EXPECT_NEAR(spectra[i].sigma[k], plain.sigma[k], 1e-14 * plain.sigma[0]);
  }
  Signature signature;
  signature.structural_bound = 6;
  read_numbers(spectra[1], torch::kDouble, signature);
  EXPECT_EQ(signature.rank, 2);
  EXPECT_EQ(to_string(signature.status), "solver_retried");
}

INSTANTIATE_TEST_SUITE_P(Failures, FailingSolver, testing::Values(Failure::Throws, Failure::GivesNan));

TEST(ReadSpectra, AreThoseOfEachMatrixAlone) {
  torch::manual_seed(test::seed(3));
  std::vector<TriangularAccumulator> accumulators;
  for (const auto& [n, d] : std::vector<std::pair<int, int>>{{40, 6}, {3, 6}, {40, 6}, {40, 5}, {1, 1}, {70, 6}}) {
    accumulators.emplace_back(d);
    accumulators.back().update(gaussian(n, d));
  }
  accumulators[2].update(torch::full({1, 6}, NAN));
  std::vector<const TriangularAccumulator*> pointers;
  for (const TriangularAccumulator& accumulator : accumulators) pointers.push_back(&accumulator);
  const std::vector<Spectrum> together = read_spectra(pointers, true);
  for (std::size_t i = 0; i < pointers.size(); ++i) {
    const Spectrum alone = read_spectrum(accumulators[i], true);
    EXPECT_EQ(together[i].finite, i != 2);
    EXPECT_EQ(together[i].finite, alone.finite);
    EXPECT_EQ(together[i].sigma, alone.sigma);
    EXPECT_EQ(together[i].right.defined(), i != 2);
    if (i != 2) {
      EXPECT_TRUE(torch::equal(together[i].right, alone.right));
    }
  }
  EXPECT_TRUE(read_spectra({}).empty());
  EXPECT_THROW(read_spectra({nullptr}), InvalidArgument);
}

}  // namespace
}  // namespace dds
