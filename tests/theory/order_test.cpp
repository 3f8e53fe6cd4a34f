#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <dds/order.hpp>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;
using Function = std::function<at::Tensor(const at::Tensor&)>;

at::Tensor vector(std::vector<double> values) { return torch::tensor(values, torch::kDouble); }

/// K in coordinates z that a rotation of d dimensions hides, the coordinates beyond K's own being regular with
/// curvatures from 1 to `condition`. z = Q w.
struct Hidden {
  Excess excess;
  at::Tensor rotation;
  std::int64_t dimensions;

  Hidden(std::int64_t d, std::int64_t own, Excess inner, double condition = 1e3) : dimensions(d) {
    const at::Tensor q = test::orthonormal(d, d);
    rotation = q;
    const at::Tensor curvature = torch::logspace(0, std::log10(condition), d - own, 10.0, torch::kDouble);
    excess = [q, own, d, curvature, inner = std::move(inner)](const at::Tensor& w) {
      const at::Tensor z = q.mv(w);
      return inner(z) + (curvature * z.narrow(0, own, d - own).pow(2)).sum();
    };
  }
  /// A direction given in z.
  at::Tensor direction(std::vector<double> z) const {
    z.resize(dimensions);
    return rotation.t().mv(vector(z));
  }
  at::Tensor origin() const { return torch::zeros({dimensions}, torch::kDouble); }
  DirectionOrder order(std::vector<double> z, double t_max) const {
    return direction_order(excess, origin(), direction(std::move(z)), OrderOptions().t_max(t_max));
  }
};

struct Known {
  std::string name;
  Excess excess;
  std::int64_t own;
  std::vector<double> direction;
  double order;     ///< 0: gauge
  double straight;  ///< of the straight line; 0: none
  double t_max = 0.1;
};
void PrintTo(const Known& known, std::ostream* os) { *os << known.name; }

std::vector<Known> known_orders() {
  std::vector<Known> all;
  const auto add = [&](auto... fields) { all.push_back({fields...}); };
  for (const int k : {1, 2, 3, 4}) {
    add("monomial" + std::to_string(k), Excess([k](const at::Tensor& z) { return z[0].pow(2 * k); }), 1L,
        std::vector<double>{1}, double(k), double(k));
    add("corrected" + std::to_string(k),
        Excess([k](const at::Tensor& z) { return (z[0].pow(k) * (1 + z[0] + 2 * z[0].pow(2))).pow(2); }), 1L,
        std::vector<double>{1}, double(k), double(k));
  }
  for (const int k : {2, 3, 4}) {
    // A deep linear network's dead coordinate: (w_1 ... w_k)^2 along (1, ..., 1); K vanishes on planes nearby.
    add("product" + std::to_string(k), Excess([k](const at::Tensor& z) { return z.narrow(0, 0, k).prod().pow(2); }),
        long(k), std::vector<double>(k, 1.0), double(k), double(k), k == 4 ? 0.3 : 0.1);
    // A valley that bends: the straight line sees its wall.
    add("valley" + std::to_string(k),
        Excess([k](const at::Tensor& z) { return (z[1] - z[0].pow(2)).pow(2) + z[0].pow(2 * k); }), 2L,
        std::vector<double>{1, 0}, double(k), std::min(2.0, double(k)));
  }
  const Excess mixed = [](const at::Tensor& z) { return z[0].pow(4) + z[1].pow(6); };
  add("mixedFirst", mixed, 2L, std::vector<double>{1, 0}, 2.0, 2.0);
  add("mixedSecond", mixed, 2L, std::vector<double>{0, 1}, 3.0, 3.0);
  add("mixedBoth", mixed, 2L, std::vector<double>{1, 1}, 2.0, 2.0);
  // One factor of a product is free while the other is zero.
  add("flat", Excess([](const at::Tensor& z) { return (z[0] * z[1]).pow(2); }), 2L, std::vector<double>{1, 0}, 0.0,
      0.0);
  add("hyperbola", Excess([](const at::Tensor& z) { return ((1 + z[0]) * (1 + z[1]) - 1).pow(2); }), 2L,
      std::vector<double>{1, -1}, 0.0, 2.0);
  add("circle", Excess([](const at::Tensor& z) { return ((1 + z[0]).pow(2) + z[1].pow(2) - 1).pow(2); }), 2L,
      std::vector<double>{0, 1}, 0.0, 2.0);
  // Zero is stationary by symmetry: nothing leads from the line to the curve, a = b = c^2 and its like. For `Cubic`
  // the Hessian beside the line vanishes as well.
  const auto bent = [&](const std::string& name, Excess excess, std::vector<double> direction) {
    const long own = std::ssize(direction);
    add("bent" + name, std::move(excess), own, std::move(direction), 0.0, 0.0);
  };
  bent("Product", [](const at::Tensor& z) { return (z[0] * z[1] - z[2].pow(4)).pow(2); }, {0, 0, 1});
  bent("OddProduct", [](const at::Tensor& z) { return (z[0] * z[1] - z[2].pow(3)).pow(2); }, {0, 0, 1});
  bent("Pitchfork", [](const at::Tensor& z) { return (z[0].pow(2) - z[1].pow(4)).pow(2); }, {0, 1});
  bent("Negative", [](const at::Tensor& z) { return (z[0] * z[1] + z[2].pow(4)).pow(2); }, {0, 0, 1});
  bent("Cubic", [](const at::Tensor& z) { return (z[0] * z[1] * z[2] - z[3].pow(6)).pow(2); }, {0, 0, 0, 1});
  // A sum of two such squares that cannot both vanish.
  add("symmetricDead", Excess([](const at::Tensor& z) {
        return (z[0] * z[1] - z[2].pow(4)).pow(2) + (z[0] * z[1] + z[2].pow(4)).pow(2);
      }),
      3L, std::vector<double>{0, 0, 1}, 4.0, 4.0, 0.3);
  return all;
}

class KnownOrder : public testing::TestWithParam<Known> {};

TEST_P(KnownOrder, IsFoundBehindRotationsAndBesideRegularDirections) {
  const Known& known = GetParam();
  for (const int seed : {0, 1, 2}) {
    if (seed > 0 && known.name.starts_with("bent")) continue;  // these take long
    for (const double condition : {1.0, 1e6}) {
      torch::manual_seed(test::seed(seed));
      const Hidden hidden(8, known.own, known.excess, condition);
      const DirectionOrder found = hidden.order(known.direction, known.t_max);
      const DirectionKind expected = known.order == 0   ? DirectionKind::Gauge
                                     : known.order == 1 ? DirectionKind::Regular
                                                        : DirectionKind::Dead;
      EXPECT_EQ(to_string(found.kind), to_string(expected)) << found.reason << " seed " << seed;
      if (known.order > 0) {
        EXPECT_NEAR(found.order.value_or(0), known.order, 0.05) << seed << " " << condition;
      }
      if (known.straight > 0) {
        EXPECT_NEAR(found.straight_order.value_or(0), known.straight, 0.1);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, KnownOrder, testing::ValuesIn(known_orders()),
                         [](const auto& info) { return info.param.name; });

class Scales : public testing::TestWithParam<double> {};

TEST_P(Scales, OfKChangeNoOrder) {
  torch::manual_seed(test::seed(4));
  const Hidden hidden(5, 1, [](const at::Tensor& z) { return z[0].pow(6) * (1 + z[0]); });
  const Excess scaled = [&](const at::Tensor& w) { return GetParam() * hidden.excess(w); };
  const DirectionOrder found = direction_order(scaled, hidden.origin(), 7 * hidden.direction({1}));
  EXPECT_EQ(found.kind, DirectionKind::Dead) << found.reason;
  EXPECT_NEAR(*found.order, 3, 0.02);
  EXPECT_NEAR(*found.log_scale, std::log(GetParam()), 0.2);
}

INSTANTIATE_TEST_SUITE_P(Powers, Scales, testing::Values(1e-6, 1e-3, 1.0, 1e6));

// ---- networks ----

// a relu(w x): a -> a e^s, w -> w e^-s leaves the function alone; the orbit bends, and its tangent is (a, -w).
TEST(DirectionOrder, RescalingAReluUnitIsAGauge) {
  for (const int seed : {0, 1, 2, 3, 4}) {
    torch::manual_seed(test::seed(seed));
    const at::Tensor x = torch::randn({60, 3}, torch::kDouble);
    const Function f = [x](const at::Tensor& p) {
      const at::Tensor hidden = torch::relu(x.mm(p.narrow(0, 0, 6).view({3, 2})));
      return hidden.mm(p.narrow(0, 6, 2).view({2, 1}));
    };
    const at::Tensor point = torch::randn({8}, torch::kDouble);
    at::Tensor tangent = torch::zeros({8}, torch::kDouble);
    for (const int i : {0, 2, 4}) tangent[i] = -point[i];  // the first unit's column
    tangent[6] = point[6];
    const DirectionOrder found = direction_order(gaussian_excess(f, point), point, tangent);
    EXPECT_EQ(to_string(found.kind), "gauge") << found.reason << found.order.value_or(0);
    EXPECT_TRUE(found.followed);
    EXPECT_NEAR(found.straight_order.value_or(0), 2, 0.2);  // what a line would have said
    const DirectionOrder other = direction_order(gaussian_excess(f, point), point, torch::randn({8}, torch::kDouble));
    EXPECT_EQ(to_string(other.kind), "regular") << other.reason;
  }
}

// A unit whose weights are all zero: the incoming one alone is flat, both together have order 2. The other unit cannot
// make up for it: over inputs this wide a line is none of its functions.
TEST(DirectionOrder, AnEmptyUnitHasOrderTwoInBothItsWeights) {
  const at::Tensor x = torch::linspace(-6, 6, 40, torch::kDouble).unsqueeze(1);
  const Function f = [x](const at::Tensor& p) { return p[1] * torch::tanh(x * p[0]) + p[3] * torch::tanh(x * p[2]); };
  const at::Tensor point = vector({0.8, 1.1, 0, 0});
  const Excess excess = gaussian_excess(f, point, 0.5);
  EXPECT_EQ(to_string(direction_order(excess, point, vector({0, 0, 1, 0})).kind), "gauge");
  const DirectionOrder both = direction_order(excess, point, vector({0, 0, 1, 1}));
  EXPECT_EQ(to_string(both.kind), "dead") << both.reason;
  EXPECT_NEAR(both.order.value_or(0), 2, 0.05);
}

TEST(DirectionOrder, ShiftsOfLogitsAreAGaugeOfTheSoftmaxOnly) {
  torch::manual_seed(test::seed(7));
  const at::Tensor x = torch::randn({50, 3}, torch::kDouble);
  const Function f = [x](const at::Tensor& p) { return x.mm(p.narrow(0, 0, 12).view({3, 4})) + p.narrow(0, 12, 4); };
  const at::Tensor point = torch::randn({16}, torch::kDouble);
  at::Tensor shift = torch::zeros({16}, torch::kDouble);
  shift.narrow(0, 12, 4).fill_(1);
  EXPECT_EQ(to_string(direction_order(categorical_excess(f, point), point, shift).kind), "gauge");
  EXPECT_EQ(to_string(direction_order(gaussian_excess(f, point), point, shift).kind), "regular");
  EXPECT_EQ(to_string(direction_order(categorical_excess(f, point), point, torch::randn({16}, torch::kDouble)).kind),
            "regular");
}

TEST(DirectionOrder, TheKernelOfANormalisationIsAGauge) {
  torch::manual_seed(test::seed(8));
  const at::Tensor x = torch::randn({40, 3}, torch::kDouble);
  const Function f = [x](const at::Tensor& p) {
    const at::Tensor w = p.view({3, 4});
    return torch::layer_norm(x.mm(w), {4}, {}, {}, 0.0);
  };
  const at::Tensor point = torch::randn({12}, torch::kDouble);
  const Excess excess = gaussian_excess(f, point);
  EXPECT_EQ(to_string(direction_order(excess, point, point).kind), "gauge");
  EXPECT_EQ(to_string(direction_order(excess, point, torch::randn({12}, torch::kDouble)).kind), "regular");
}

// ---- the divergences ----

TEST(Excess, OfTheSoftmaxIsTheDivergenceAndKeepsTheFloorOfASquare) {
  torch::manual_seed(test::seed(9));
  const at::Tensor point = torch::randn({12}, torch::kDouble), away = torch::randn({12}, torch::kDouble);
  const Function f = [](const at::Tensor& p) { return p.view({3, 4}); };
  const Excess excess = categorical_excess(f, point);
  const at::Tensor p = torch::log_softmax(f(point), -1), q = torch::log_softmax(f(away), -1);
  EXPECT_NEAR(excess(away).item<double>(), (p.exp() * (p - q)).sum().item<double>() / 3, 1e-14);
  // Near the point: half the Fisher form, 1e-16 and less, to eight digits.
  const at::Tensor u = away / away.norm();
  const at::Tensor row = f(u), mean = (p.exp() * row).sum(-1, true);
  const double fisher = (p.exp() * (row - mean).pow(2)).sum().item<double>() / 3;
  for (const double t : {1e-4, 1e-6, 1e-8}) {
    EXPECT_NEAR(excess(point + t * u).item<double>() / (t * t * fisher / 2), 1, 10 * t + 1e-7) << t;
  }
}

// ---- what cannot be told ----

TEST(DirectionOrder, SaysWhyNot) {
  const Excess square = [](const at::Tensor& w) { return w.pow(2).sum(); };
  const at::Tensor zero = torch::zeros({2}, torch::kDouble), one = torch::ones({2}, torch::kDouble);
  const DirectionOrder off = direction_order(square, one, one);
  EXPECT_EQ(to_string(off.kind), "not_a_minimum");
  EXPECT_THAT(off.reason, HasSubstr("K is 2 at the point"));
  const Excess saddle = [](const at::Tensor& w) { return w[0].pow(2) - w[1].pow(2); };
  EXPECT_EQ(to_string(direction_order(saddle, zero, vector({1, 2})).kind), "not_a_minimum");
  for (const int powers : {2, 4}) {
    const Excess along = [=](const at::Tensor& w) { return w[0].pow(powers) - w[1].pow(2); };
    EXPECT_EQ(to_string(direction_order(along, zero, vector({1, 0})).kind), "not_a_minimum") << powers;
    const Excess flat = [=](const at::Tensor& w) { return w[0].pow(powers) - w[1].pow(4); };
    EXPECT_EQ(to_string(direction_order(flat, zero, vector({1, 0})).kind), "not_a_minimum") << powers;
    for (const std::int64_t d : {8, 40}) {
      torch::manual_seed(test::seed(5));
      const Hidden hidden(d, 2, [=](const at::Tensor& z) { return z[0].pow(powers) - 1e-3 * z[1].pow(2); });
      EXPECT_EQ(to_string(hidden.order({1}, 0.1).kind), "not_a_minimum") << powers << " among " << d;
    }
  }
  const Excess between = [](const at::Tensor& w) { return w[0].abs().pow(5) + w[1].pow(2); };
  const DirectionOrder half = direction_order(between, zero, vector({1, 0}));
  EXPECT_EQ(to_string(half.kind), "undecided");
  EXPECT_THAT(half.reason, HasSubstr("tells no integer"));
  const Excess tiny = [](const at::Tensor& w) { return w[0].pow(16) + w[1].pow(2); };
  EXPECT_THAT(direction_order(tiny, zero, vector({1, 0})).reason, HasSubstr("take a larger t_max"));
}

// Curves that are found at some distances only, since K is rounding at the others: no order.
TEST(DirectionOrder, OfACurveThatIsHardToFindIsNotDecided) {
  const Excess quartic = [](const at::Tensor& z) { return ((16 * z[0] * z[1]).pow(2) - z[2].pow(6)).pow(2); };
  const Excess steep = [](const at::Tensor& z) { return (z[0] * z[1] - z[2].pow(6)).pow(2); };
  for (const Excess& k : {quartic, steep}) {
    torch::manual_seed(test::seed(1));
    const Hidden hidden(8, 3, k);
    EXPECT_NE(to_string(hidden.order({0, 0, 1}, 0.1).kind), "dead");
  }
}

// What holds in the window need not hold at w*. The order at w* is that of the term of lowest degree.
TEST(DirectionOrder, SaysThatAnOrderDependsOnTheWindow) {
  const at::Tensor zero = torch::zeros({2}, torch::kDouble), first = vector({1, 0});
  const auto in = [&](const Function& k, double t_min, double t_max) {
    return direction_order(k, zero, first, OrderOptions().t_min(t_min).t_max(t_max));
  };
  struct Case {
    Function k;
    double window, limit;  ///< orders
    double t_min, t_max;   ///< where the limit is seen
  };
  const std::vector<Case> cases{
      {[](const at::Tensor& w) { return w[0].pow(4) + 1e-6 * w[0].pow(2) + w[1].pow(2); }, 2, 1, 1e-6, 1e-5},
      {[](const at::Tensor& w) { return w[0].pow(6) + 1e-6 * w[0].pow(4) + w[1].pow(2); }, 3, 2, 3e-5, 2e-4},
      {[](const at::Tensor& w) { return w[0].pow(4) / (w[0].pow(2) + 1e-6) + w[1].pow(2); }, 1, 2, 3e-6, 3e-5},
      {[](const at::Tensor& w) { return (w[1] - w[0].pow(2)).pow(2) + w[0].pow(6) + 1e-6 * w[0].pow(4); }, 3, 2, 3e-5,
       2e-4}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const DirectionOrder wide = in(cases[i].k, 3e-3, 0.1);
    EXPECT_EQ(to_string(wide.kind), "undecided") << i;
    EXPECT_THAT(wide.reason, HasSubstr("depends on the window")) << i;
    EXPECT_NEAR(wide.order.value_or(0), cases[i].window, 0.2) << i;
    const DirectionOrder near = in(cases[i].k, cases[i].t_min, cases[i].t_max);
    EXPECT_EQ(to_string(near.kind), cases[i].limit == 1 ? "regular" : "dead") << i << ": " << near.reason;
    EXPECT_NEAR(near.order.value_or(0), cases[i].limit, 0.05) << i;
  }
}

TEST(DirectionOrder, NamesWhatIsWrong) {
  const Excess square = [](const at::Tensor& w) { return w.pow(2).sum(); };
  const at::Tensor zero = torch::zeros({2}, torch::kDouble), one = torch::ones({2}, torch::kDouble);
  EXPECT_THAT(message_of([&] { direction_order(square, zero.to(torch::kFloat), one); }), HasSubstr("Float [2]"));
  EXPECT_THAT(message_of([&] { direction_order(square, zero, torch::ones({3}, torch::kDouble)); }), HasSubstr("[3]"));
  EXPECT_THAT(message_of([&] { direction_order(square, zero, zero); }), HasSubstr("the length of the direction is 0"));
  EXPECT_THAT(message_of([&] { direction_order(square, zero, one * NAN); }),
              HasSubstr("the length of the direction is nan"));
  EXPECT_THAT(message_of([&] { direction_order(square, zero, one, OrderOptions().t_min(1)); }),
              HasSubstr("t_min is 1"));
  EXPECT_THAT(message_of([&] { direction_order(square, zero, one, OrderOptions().cone(2)); }), HasSubstr("cone is 2"));
  EXPECT_THAT(message_of([&] { direction_order([](const at::Tensor& w) { return w.pow(2); }, zero, one); }),
              HasSubstr("K is Double [2], expected Double []"));
  EXPECT_THAT(message_of([&] { gaussian_excess([](const at::Tensor& w) { return w; }, zero, 0); }),
              HasSubstr("sigma is 0"));
}

}  // namespace
}  // namespace dds
