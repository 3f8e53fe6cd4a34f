// The fused step of a chain: its random numbers against published ones and their distribution, its sums and moves
// against the same formulas on tensors.
#include "src/llc/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "src/llc/pass.hpp"
#include "src/model/random.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using kernels::RandomKey;

struct KnownAnswer {
  std::uint32_t index;
  RandomKey key;
  std::array<std::uint32_t, 4> words;
};

class Philox : public testing::TestWithParam<KnownAnswer> {};

TEST_P(Philox, GivesThePublishedAnswers) {
  std::array<std::uint32_t, 4> words{};
  kernels::words(GetParam().key, GetParam().index, words.data());
  EXPECT_EQ(words, GetParam().words);
}

// Random123's own kat_vectors for philox4x32 with 10 rounds.
INSTANTIATE_TEST_SUITE_P(
    Random123, Philox,
    testing::Values(KnownAnswer{0, {0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                    KnownAnswer{~0u, {~0ull, ~0ull, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                    KnownAnswer{0x243f6a88,
                                {0x299f31d0a4093822, 0x13198a2e85a308d3, 0x03707344},
                                {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));

TEST(Normals, AreBoxMullersOfTheWords) {
  const RandomKey key{42, 7, 0};
  std::vector<float> x(4 * kernels::kBlock);
  kernels::normals(key, 0, static_cast<std::int64_t>(x.size()), x.data());
  constexpr std::int64_t kLanes = kernels::kBlock / 4;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(x.size()); ++i) {
    const std::int64_t block = i / kernels::kBlock, row = i % kernels::kBlock / kLanes, lane = i % kLanes;
    std::uint32_t words[4];
    kernels::words(key, static_cast<std::uint32_t>(block * kLanes + lane), words);
    const std::uint32_t* pair = row < 2 ? words : words + 2;
    const double u = (static_cast<double>(pair[0] >> 8) + 0.5) * 0x1p-24;
    const auto fraction = static_cast<double>(static_cast<std::int32_t>(pair[1] << 2)) * 0x1p-32;
    const double angle = (fraction + static_cast<double>(pair[1] >> 30)) * std::numbers::pi / 2;
    const double expected = std::sqrt(-2 * std::log(u)) * (row % 2 == 0 ? std::cos(angle) : std::sin(angle));
    EXPECT_NEAR(x[static_cast<std::size_t>(i)], expected, 4e-6) << "number " << i;
  }
}

TEST(Normals, HaveTheMomentsAndTheDistributionOfNormalNumbers) {
  constexpr std::int64_t kCount = 1 << 20;
  std::vector<float> x(kCount);
  kernels::normals({test::seed(1), 2, 3}, 0, kCount, x.data());
  // Each mean of x^p has the standard error sqrt(((2p - 1)!! - ((p - 1)!!)^2) / n).
  const double n = kCount;
  double moments[9] = {};
  for (const float value : x) {
    for (int p = 1; p <= 8; ++p) moments[p] += std::pow(static_cast<double>(value), p) / n;
  }
  const double expected[9] = {1, 0, 1, 0, 3, 0, 15, 0, 105};
  const double squares[9] = {1, 1, 3, 15, 105, 945, 10395, 135135, 2027025};
  for (int p = 1; p <= 8; ++p) {
    const double error = std::sqrt((squares[p] - expected[p] * expected[p]) / n);
    EXPECT_NEAR(moments[p], expected[p], 5 * error) << "moment " << p;
  }
  // Kolmogorov and Smirnov: sqrt(n) D exceeds 2.2 once in eight thousand times.
  std::sort(x.begin(), x.end());
  double largest = 0;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const double below = std::erfc(-static_cast<double>(x[static_cast<std::size_t>(i)]) / std::sqrt(2.0)) / 2;
    largest = std::max(largest, std::abs(below - (static_cast<double>(i) + 0.5) / n));
  }
  EXPECT_LT(std::sqrt(n) * largest, 2.2);
}

TEST(Normals, OfAnotherKeyStepPurposeOrPlaceAreOthers) {
  const auto of = [](const RandomKey& key, std::int64_t first = 0) {
    at::Tensor x = torch::empty({4096});
    kernels::normals(key, first, 4096, x.data_ptr<float>());
    return x;
  };
  const std::uint64_t seed = test::seed(5);
  const auto base = of({seed, 6, 0});
  EXPECT_TRUE(base.equal(of({seed, 6, 0})));
  for (const auto& other : {of({seed + 1, 6, 0}), of({seed, 7, 0}), of({seed, 6, 1}), of({seed, 6, 0}, 4096)}) {
    EXPECT_LT(std::abs((base * other).mean().item<double>()), 4 / std::sqrt(4096.0));
  }
  // A part of a step's numbers is those numbers.
  EXPECT_TRUE(of({seed, 6, 0}, 2048).slice(0, 0, 2048).equal(base.slice(0, 2048)));
}

TEST(Indices, AreDrawnFromAllAlike) {
  for (const std::int64_t bound : {1, 2, 7, 1000}) {
    // Pearson's statistic over many steps: a sum of chi squares.
    const std::int64_t count = 2000, steps = 20;
    double chi_square = 0;
    for (std::uint64_t step = 0; step < steps; ++step) {
      at::Tensor indices = torch::empty({count}, torch::kLong);
      kernels::indices({test::seed(9), step, 1}, bound, count, indices.data_ptr<std::int64_t>());
      EXPECT_GE(indices.min().item<std::int64_t>(), 0);
      EXPECT_LT(indices.max().item<std::int64_t>(), bound);
      const auto times = torch::bincount(indices, {}, bound).to(torch::kDouble);
      const double each = static_cast<double>(count) / static_cast<double>(bound);
      chi_square += ((times - each).square() / each).sum().item<double>();
    }
    const auto degrees = static_cast<double>(steps * (bound - 1));
    // Of 20 degrees of freedom, the fewest here, 2e-5 are beyond.
    EXPECT_NEAR(chi_square, degrees, 6 * std::sqrt(2 * degrees)) << "of " << bound;
  }
}

/// What a pass is asked for.
struct Case {
  std::vector<std::int64_t> parts;
  at::ScalarType dtype;
  bool slope, scale, carried;
  double box;
};

class Pass : public testing::TestWithParam<Case> {};

TEST_P(Pass, AddsUpAndMovesAsTheFormulasSay) {
  const auto& c = GetParam();
  std::int64_t size = 0;
  for (const auto part : c.parts) size += part;
  auto g = generator_for(at::kCPU, static_cast<std::uint64_t>(size));
  const auto random = [&] { return torch::randn({size}, g, torch::kDouble).to(c.dtype); };
  WeightPass pass;
  pass.weights = random();
  pass.start = random();
  pass.n_beta = 12.5;
  pass.gamma = 0.75;
  pass.eps = 0.04;
  pass.box = c.box;
  pass.noise = {11, 12, 13};
  pass.drift = torch::empty_like(pass.weights);
  pass.moved = torch::empty_like(pass.weights);
  if (c.slope) pass.slope = random();
  if (c.scale) pass.scale = random().abs() + 0.1;
  if (c.box > 0) pass.weights = pass.start + random().clamp(-c.box, c.box) * 0.99;
  std::vector<at::Tensor> whole;
  for (std::size_t i = 0; i < c.parts.size(); ++i) {
    // The second part is one that the loss does not depend on; the third is not contiguous.
    at::Tensor part = torch::randn({c.parts[i]}, g, torch::kDouble).to(c.dtype);
    if (i == 2) part = torch::stack({part, part}, 1).select(1, 0);
    if (i == 1) part.zero_();
    whole.push_back(part.to(torch::kDouble));
    pass.gradient.push_back({i == 1 ? at::Tensor() : part, c.parts[i]});
  }
  const auto noise = [&](const RandomKey& key) {
    at::Tensor x = torch::empty({size});
    kernels::normals(key, 0, size, x.data_ptr<float>());
    return x.to(torch::kDouble);
  };
  auto xi = noise(pass.noise);
  if (c.carried) {
    pass.carried = carried_noise_like(pass.weights, {11, 11, 13});
    xi = (xi + noise({11, 11, 13})) / 2;
  }

  const auto sums = run(pass);

  const auto w = pass.weights.to(torch::kDouble), start = pass.start.to(torch::kDouble);
  const auto s = c.slope ? pass.slope.to(torch::kDouble) : torch::zeros_like(w);
  const auto p = c.scale ? pass.scale.to(torch::kDouble).square() : torch::ones_like(w);
  const auto displacement = w - start, force = pass.n_beta * (torch::cat(whole) - s);
  const auto drift = force + pass.gamma * displacement;
  auto moved = w - pass.eps / 2 * p * drift + (pass.eps * p).sqrt() * xi;
  if (c.box > 0) {
    auto d = moved - start;
    d = torch::where(d > c.box, 2 * c.box - d, torch::where(d < -c.box, -2 * c.box - d, d));
    moved = start + d.clamp(-c.box, c.box);
    EXPECT_GT((pass.moved - pass.start).abs().max().item<double>(), 0.9 * c.box) << "the box should matter";
  }
  // The noise is fp32's own.
  const double tolerance = c.dtype == at::kDouble ? 1e-6 : c.dtype == at::kFloat ? 1e-5 : 1e-2;
  EXPECT_LT(test::relative_difference(pass.moved.to(torch::kDouble), moved), tolerance);
  EXPECT_LT(test::relative_difference(pass.drift.to(torch::kDouble), drift), tolerance);
  const auto expect_sum = [&](double sum, const at::Tensor& terms) {
    EXPECT_NEAR(sum, terms.sum().item<double>(), tolerance * terms.abs().sum().item<double>());
  };
  expect_sum(sums.distance, displacement * displacement);
  expect_sum(sums.along, force * displacement);
  expect_sum(sums.bias, force * p * drift);
  expect_sum(sums.drift, drift * p * drift);
  if (c.carried) {
    EXPECT_LT(test::relative_difference(pass.carried.to(torch::kDouble), noise(pass.noise)), 1e-6);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    for (const auto& parts :
         std::vector<std::vector<std::int64_t>>{{1}, {255, 1}, {3, 254, 100}, {256, 256, 1000, 7}}) {
      for (int bits = 0; bits < 8; ++bits) {
        all.push_back({parts, dtype, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, 0});
      }
    }
    all.push_back({{300, 5, 700}, dtype, true, true, false, 0.5});
  }
  // Other types take ATen's operators, which are held to the same formulas.
  all.push_back({{300, 5, 700}, at::kHalf, false, false, false, 0});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cases, Pass, testing::ValuesIn(cases()));

}  // namespace
}  // namespace dds
