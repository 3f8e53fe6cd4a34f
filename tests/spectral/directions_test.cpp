#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <dds/dead_axes_tracker.hpp>
#include <dds/directions.hpp>
#include <dds/spectrum.hpp>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using test::orthonormal;
using testing::HasSubstr;

at::Tensor rotation(std::int64_t d) { return orthonormal(d, d); }

// ---- principal angles ----

class Angles : public testing::TestWithParam<double> {};

// Subspaces with planted angles, hidden by rotations of the space and of each basis.
TEST_P(Angles, ArePlantedOnesToRounding) {
  constexpr std::int64_t d = 40, k = 3;
  torch::manual_seed(test::seed(1));
  const at::Tensor space = rotation(d);
  const double theta = GetParam();
  std::vector<double> planted{theta / 3, theta / 2, theta};
  std::vector<at::Tensor> a, b;
  for (std::int64_t i = 0; i < k; ++i) {
    const at::Tensor u = space[2 * i], v = space[2 * i + 1];
    a.push_back(u);
    b.push_back(std::cos(planted[i]) * u + std::sin(planted[i]) * v);
  }
  b.push_back(space[39]);  // one more dimension, orthogonal to all
  const at::Tensor first = rotation(k).mm(torch::stack(a)), second = rotation(k + 1).mm(torch::stack(b));
  const PrincipalAngles found = principal_angles(first, second);
  ASSERT_EQ(found.angles.size(), 3u);
  const double bound = 20 * std::sqrt(d) * 0x1p-53;
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(found.angles[i], planted[i], bound) << i;
  EXPECT_EQ(found.first.size(0), 3);
  EXPECT_EQ(found.second.size(0), 4);
  EXPECT_LT((found.second[3].matmul(first.t())).abs().max().item<double>(), 1e-14);
  for (std::int64_t i = 0; i < k; ++i) {
    EXPECT_NEAR(found.first[i].dot(found.second[i]).item<double>(), std::cos(planted[i]), 1e-14);
  }
  const PrincipalAngles swapped = principal_angles(second, first);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(swapped.angles[i], found.angles[i], bound);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Angles, testing::Values(0.0, 1e-14, 1e-9, 1e-4, 0.5, 0.785, 0.79, 1.2, std::acos(0.0)));

TEST(PrincipalAngles, OfEmptySpacesAndOfWhatIsNoBasis) {
  const at::Tensor two = orthonormal(5, 2).t();
  EXPECT_TRUE(principal_angles(two, torch::zeros({0, 5})).angles.empty());
  EXPECT_EQ(principal_angles(torch::zeros({0, 5}), two).second.size(0), 2);
  EXPECT_THAT(message_of([&] { principal_angles(two, orthonormal(6, 2).t()); }),
              HasSubstr("the dimension of b is 6, expected 5"));
  const at::Tensor axes = torch::eye(5, torch::kDouble).slice(0, 0, 2);  // its products are exact
  EXPECT_THAT(message_of([&] { principal_angles(axes * 2, two); }),
              HasSubstr("is 3, expected at most 1e-6, for orthonormality"));
  EXPECT_THAT(message_of([&] { principal_angles(two * NAN, two); }), HasSubstr("orthonormality"));
  EXPECT_THAT(message_of([&] { principal_angles(two[0], two); }), HasSubstr("[5]"));
  EXPECT_THAT(message_of([&] { principal_angles({}, two); }), HasSubstr("undefined"));
}

// ---- births and deaths ----

/// A reading at `step` whose rows have no component along `axes` (k x d).
Signature reading(std::int64_t step, const at::Tensor& axes) {
  const std::int64_t d = axes.size(1);
  at::Tensor rows = torch::randn({200, d}, torch::kDouble);
  rows = rows - rows.mm(axes.t()).mm(axes);
  TriangularAccumulator accumulator(d);
  accumulator.update(rows);
  const Spectrum spectrum = read_spectrum(accumulator, true);
  Signature signature;
  signature.step = step;
  signature.layer = "fc";
  signature.structural_bound = d;
  read_numbers(spectrum, torch::kDouble, signature);
  signature.dead_axes = dead_axes(spectrum, signature);
  return signature;
}

TEST(DeadAxesTracker, TellsWhatIsKeptBornAndRevived) {
  torch::manual_seed(test::seed(2));
  const at::Tensor space = rotation(9);
  const auto axes = [&](std::vector<std::int64_t> which) {
    return space.index_select(0, torch::tensor(which, torch::kLong));
  };
  DeadAxesTracker tracker;
  EXPECT_FALSE(tracker.add(reading(0, axes({0, 1}))).has_value());
  const auto grown = tracker.add(reading(10, axes({0, 1, 4})));
  ASSERT_TRUE(grown.has_value());
  EXPECT_EQ(grown->from, 0);
  EXPECT_EQ(grown->to, 10);
  EXPECT_EQ(std::tuple(grown->kept, grown->born, grown->revived), std::tuple(2, 1, 0));
  EXPECT_NEAR(std::abs(grown->born_axes[0].dot(space[4]).item<double>()), 1, 1e-12);
  const auto turned = tracker.add(reading(20, axes({0, 5, 6})));  // as many as before, but others
  EXPECT_EQ(std::tuple(turned->kept, turned->born, turned->revived), std::tuple(1, 2, 2));
  const at::Tensor revived = turned->revived_axes;
  EXPECT_NEAR(revived.mm(axes({1, 4}).t()).norm().item<double>(), std::sqrt(2.0), 1e-12);
  const auto alive = tracker.add(reading(30, torch::zeros({0, 9}, torch::kDouble)));
  EXPECT_EQ(std::tuple(alive->kept, alive->born, alive->revived), std::tuple(0, 0, 3));
}

class Turning : public testing::TestWithParam<double> {};

// An axis that turns by theta between readings is the same one below the threshold, and another above.
TEST_P(Turning, IsJudgedByTheThreshold) {
  torch::manual_seed(test::seed(3));
  const at::Tensor space = rotation(6);
  const double theta = 0.4;
  DeadAxesTracker tracker(GetParam());
  tracker.add(reading(0, space.narrow(0, 0, 1)));
  const auto change = tracker.add(reading(1, (std::cos(theta) * space[0] + std::sin(theta) * space[1]).unsqueeze(0)));
  EXPECT_NEAR(change->angles.at(0), theta, 1e-12);
  EXPECT_EQ(change->kept, theta < GetParam() ? 1 : 0);
}

INSTANTIATE_TEST_SUITE_P(Thresholds, Turning, testing::Values(0.3, 0.39, 0.41, 1.0, std::acos(0.0)));

// The dead axes as such, and as what is orthogonal to the axes that are alive, are the same change.
TEST(DeadAxesTracker, SaysTheSameOfComplements) {
  torch::manual_seed(test::seed(8));
  const at::Tensor space = rotation(9);
  const at::Tensor turned = (std::cos(0.3) * space[2] + std::sin(0.3) * space[7]).unsqueeze(0);
  const std::vector<at::Tensor> dead{space.narrow(0, 0, 3),
                                     at::cat({space.narrow(0, 0, 2), turned, space.narrow(0, 4, 1)}),
                                     space.narrow(0, 1, 6), space.narrow(0, 0, 1), space.narrow(0, 0, 8)};
  DeadAxesTracker explicitly, by_complements;
  for (std::size_t i = 0; i < dead.size(); ++i) {
    const Signature plain = reading(static_cast<std::int64_t>(i), dead[i]);
    Signature implied = plain;
    implied.axes = std::get<2>(torch::linalg_svd(torch::eye(9, torch::kDouble) - dead[i].t().mm(dead[i])))
                       .narrow(0, 0, *plain.rank);
    implied.dead_axes.reset();
    const auto expected = explicitly.add(plain), found = by_complements.add(implied);
    ASSERT_EQ(expected.has_value(), i > 0);
    ASSERT_EQ(found.has_value(), i > 0);
    if (i == 0) continue;
    EXPECT_EQ(std::tuple(found->kept, found->born, found->revived),
              std::tuple(expected->kept, expected->born, expected->revived));
    ASSERT_EQ(found->angles.size(), expected->angles.size());
    for (std::size_t j = 0; j < found->angles.size(); ++j) {
      EXPECT_NEAR(found->angles[j], expected->angles[j], 1e-12) << i << ' ' << j;
    }
    const auto projection = [](const at::Tensor& basis) { return basis.t().mm(basis); };
    EXPECT_LT((projection(found->born_axes) - projection(expected->born_axes)).abs().max().item<double>(), 1e-12);
    EXPECT_LT((projection(found->revived_axes) - projection(expected->revived_axes)).abs().max().item<double>(), 1e-12);
  }
}

TEST(DeadAxesTracker, KeepsSeriesApartAndRefusesWhatItCannotUse) {
  torch::manual_seed(test::seed(4));
  DeadAxesTracker tracker;
  Signature a = reading(0, rotation(5).narrow(0, 0, 2)), other = a;
  other.layer = "fc2";
  tracker.add(a);
  EXPECT_FALSE(tracker.add(other).has_value());
  Signature wider = reading(1, rotation(7).narrow(0, 0, 2));
  EXPECT_FALSE(tracker.add(wider).has_value());  // the width changed: anew
  EXPECT_EQ(tracker.add(wider)->kept, 2);
  Signature nothing = a;
  nothing.status |= Status::NonFinite;
  EXPECT_FALSE(tracker.add(nothing).has_value());
  a.dead_axes.reset();
  EXPECT_THAT(message_of([&] { tracker.add(a); }), HasSubstr("fc, activation side"));
  EXPECT_THAT(message_of([] { DeadAxesTracker(2.0); }), HasSubstr("threshold is 2"));
}

// ---- in weight space ----

TEST(WeightImage, OfDeadInputsChangesNoOutput) {
  torch::manual_seed(test::seed(5));
  const at::Tensor axes = rotation(8).narrow(0, 0, 3);
  at::Tensor rows = torch::randn({50, 8}, torch::kDouble);
  rows = rows - rows.mm(axes.t()).mm(axes);
  const WeightImage image(Side::Input, axes);
  const at::Tensor weight = torch::randn({4, 8}, torch::kDouble), update = torch::randn({4, 8}, torch::kDouble);
  const at::Tensor free = image.project(update);
  EXPECT_GT(free.norm().item<double>(), 1);
  EXPECT_LT(rows.mm(free.t()).abs().max().item<double>(), 1e-13);
  EXPECT_EQ(image.dimension(weight), 3 * 4);
  EXPECT_NEAR(image.shares().sum().item<double>(), 3, 1e-13);
  // A projection: once is as good as twice, and what is left is orthogonal to it.
  EXPECT_LT((image.project(free) - free).abs().max().item<double>(), 1e-14);
  EXPECT_NEAR((update - free).mul(free).sum().item<double>(), 0, 1e-13);
}

TEST(WeightImage, OfDeadChannelsChangesNoConvolution) {
  torch::manual_seed(test::seed(6));
  const at::Tensor axes = rotation(5).narrow(0, 0, 2);
  at::Tensor x = torch::randn({2, 5, 7, 7}, torch::kDouble);
  x = x - torch::einsum("kc,kd,ndhw->nchw", {axes, axes, x});
  const at::Tensor free = WeightImage(Side::Input, axes).project(torch::randn({3, 5, 3, 3}, torch::kDouble));
  EXPECT_GT(free.norm().item<double>(), 1);
  EXPECT_LT(torch::conv2d(x, free).abs().max().item<double>(), 1e-12);
}

// Two units of the last layer that the loss reads only by their sum: (1, -1) is dead on the Fisher side, and every
// per-sample loss is stationary along the image.
TEST(WeightImage, OfDeadGradientsIsStationaryForEverySample) {
  torch::manual_seed(test::seed(7));
  const at::Tensor x = torch::randn({30, 4}, torch::kDouble);
  at::Tensor weight = torch::randn({3, 4}, torch::kDouble).requires_grad_();
  const at::Tensor out = x.mm(weight.t());
  const at::Tensor losses = (out.select(1, 0) + out.select(1, 1)).pow(2) + out.select(1, 2).pow(4);
  const at::Tensor delta = torch::autograd::grad({losses.sum()}, {out}, {}, /*retain_graph=*/true)[0];
  TriangularAccumulator accumulator(3);
  accumulator.update(delta);
  const Spectrum spectrum = read_spectrum(accumulator, true);
  Signature signature;
  signature.structural_bound = 3;
  read_numbers(spectrum, torch::kDouble, signature);
  const WeightImage image(Side::Fisher, dead_axes(spectrum, signature));
  EXPECT_EQ(image.dimension(weight), 4);
  const at::Tensor shares = image.shares();
  EXPECT_LT((shares - torch::tensor({0.5, 0.5, 0.0}, torch::kDouble)).abs().max().item<double>(), 1e-13);
  const at::Tensor free = image.project(torch::randn({3, 4}, torch::kDouble));
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const at::Tensor gradient = torch::autograd::grad({losses[i]}, {weight}, {}, /*retain_graph=*/true)[0];
    EXPECT_NEAR(gradient.mul(free).sum().item<double>(), 0, 1e-12 * gradient.norm().item<double>()) << i;
  }
}

TEST(WeightImage, NamesWhatIsWrong) {
  const at::Tensor axes = rotation(4).narrow(0, 0, 1);
  EXPECT_THAT(message_of([&] { WeightImage(Side::Activation, axes); }), HasSubstr("side is activation"));
  EXPECT_THAT(message_of([&] {
                WeightImage(Side::Input, axes).project(torch::ones({4, 3}));
              }),
              HasSubstr("[4, 3], expected size 4 in dimension 1"));
  EXPECT_THAT(message_of([&] {
                WeightImage(Side::Fisher, axes).dimension(torch::ones({3, 4}));
              }),
              HasSubstr("expected size 4 in dimension 0"));
}

}  // namespace
}  // namespace dds
