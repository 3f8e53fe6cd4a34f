// Rows less their mean, against the whole matrix less its mean.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/monitor.hpp>
#include <dds/spectrum.hpp>

#include "src/rows/centring.hpp"
#include "tests/causes/networks.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

std::vector<double> singular_values(const at::Tensor& matrix) {
  const at::Tensor sigma = torch::linalg_svdvals(matrix).contiguous();
  return {sigma.data_ptr<double>(), sigma.data_ptr<double>() + sigma.numel()};
}

void expect_close(const std::vector<double>& is, const std::vector<double>& expected) {
  ASSERT_EQ(is.size(), expected.size());
  for (std::size_t i = 0; i < is.size(); ++i) EXPECT_NEAR(is[i], expected[i], 1e-12 * expected[0]) << i;
}

/// A mean far from zero: what is left of a factor that is not centred from the start would be rounding.
at::Tensor far_rows(std::int64_t n, std::int64_t d) {
  torch::manual_seed(test::seed(0));
  return torch::randn({n, d}, torch::kDouble) + 1e3 * torch::randn({d}, torch::kDouble);
}

TEST(Centred, PartsOfAnySizeMakeTheWhole) {
  const std::int64_t width = 6;
  for (const std::int64_t n : {1, 2, 5, 6, 7, 400}) {
    const at::Tensor rows = far_rows(n, width);
    std::vector<double> expected = singular_values(rows - rows.mean(0));
    for (const std::int64_t part : {1, 3, 64, 400}) {
      TriangularAccumulator all(width);
      Mean mean;
      for (std::int64_t begin = 0; begin < n; begin += part) {
        all.update(centred_rows(rows.narrow(0, begin, std::min(part, n - begin)), mean));
      }
      EXPECT_EQ(mean.rows, n);
      EXPECT_LT((mean.value - rows.mean(0)).abs().max().item<double>(), 1e-11);
      const Spectrum spectrum = read_spectrum(all);
      EXPECT_EQ(spectrum.rows, n);
      ASSERT_EQ(spectrum.sigma.size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(spectrum.sigma[i], expected[i], 1e-11 * std::max(1.0, expected[0])) << n << " " << part << " " << i;
      }
    }
  }
}

TEST(Centred, FactorsAreJoined) {
  const std::int64_t width = 6;
  for (const auto& [first, second] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {2, 3}, {1, 200}, {5, 4}, {300, 200}, {6, 6}}) {
    const at::Tensor rows = far_rows(first + second, width);
    const auto part = [&](std::int64_t begin, std::int64_t size, Mean& mean) {
      TriangularAccumulator result(width);
      result.update(centred_rows(rows.narrow(0, begin, size), mean));
      return result;
    };
    Mean mean, other_mean;
    const TriangularAccumulator a = part(0, first, mean), b = part(first, second, other_mean);
    const Spectrum spectrum = read_spectrum(joined_centred(a, mean, b, other_mean));
    EXPECT_EQ(spectrum.rows, first + second);
    const std::vector<double> expected = singular_values(rows - rows.mean(0));
    ASSERT_EQ(spectrum.sigma.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(spectrum.sigma[i], expected[i], 1e-11 * std::max(1.0, expected[0])) << first << " " << second;
    }
  }
}

TEST(Centred, ReadingsAreThoseOfTheCovariance) {
  torch::manual_seed(test::seed(0));
  test::Chain net({5, 4, 3}, test::tanh_of);
  net.to(torch::kDouble);
  const at::Tensor x = torch::randn({90, 5}, torch::kDouble) + 3;
  const at::Tensor out = net.layers[0](x).detach();
  for (const std::int64_t batch : {8, 512}) {
    const auto signatures =
        dds::read({net, categorical(), Data(x)},
                  ReadOptions().batch_size(batch).signatures(SignatureOptions().centred(true).spectra(true)));
    const Signature& first = test::reading_of(signatures, "fc0", Side::Activation);
    expect_close(first.spectrum, singular_values(out - out.mean(0)));
    EXPECT_TRUE(first.centred);
    EXPECT_EQ(first.rows, 90);
    // The true Fisher's gradients have mean zero: nothing changes.
    const auto plain = dds::read({net, categorical(), Data(x)});
    EXPECT_EQ(test::reading_of(signatures, "fc1", Side::Fisher).rank, 2);
    EXPECT_FALSE(test::reading_of(plain, "fc0", Side::Activation).centred);
  }
}

/// Two steps with a window of two are one step with the rows of both.
TEST(Centred, OverAWindow) {
  torch::manual_seed(test::seed(0));
  test::Chain net({5, 4, 3}, test::tanh_of);
  net.to(torch::kDouble);
  const at::Tensor x = torch::randn({20, 5}, torch::kDouble) + 3, y = torch::randint(3, {20});
  const auto sink = std::make_shared<log::Memory>();
  {
    Monitor monitor(net, MonitorOptions().every(1).window(2).signatures(SignatureOptions().centred(true).spectra(true)),
                    sink);
    for (const std::int64_t begin : {0, 7}) {
      auto step = monitor.step();
      const std::int64_t size = begin == 0 ? 7 : 13;
      torch::cross_entropy_loss(net.forward(x.narrow(0, begin, size)), y.narrow(0, begin, size)).backward();
      step.finish();
    }
  }
  const at::Tensor out = net.layers[0](x).detach();
  const std::vector<Signature> last(sink->signatures.begin() + std::ssize(sink->signatures) / 2,
                                    sink->signatures.end());
  const Signature& first = test::reading_of(last, "fc0", Side::Activation);
  EXPECT_EQ(first.rows, 20);
  expect_close(first.spectrum, singular_values(out - out.mean(0)));
}

/// A bias that only shifts all rows is not taken for a dimension; whether the bound had counted it is not known.
TEST(Centred, NothingIsCalledDeadForWantOfABound) {
  torch::manual_seed(test::seed(0));
  test::Chain net({4, 9, 3}, test::relu_of);
  const auto signatures = dds::read({net, categorical(), Data(torch::randn({90, 4}))},
                                    ReadOptions().signatures(SignatureOptions().centred(true)));
  const Signature& first = test::reading_of(signatures, "fc0", Side::Activation);
  EXPECT_EQ(first.rank, 4);  // with the bias 5 of 9
  EXPECT_FALSE(first.dead_directions.has_value());
  EXPECT_TRUE(first.status.has(Status::BoundUnknown));
}

}  // namespace
}  // namespace dds
