// The order of directions in landscapes whose curves and slopes a line does not show, none of which the search was made
// for. The right answers are derived by hand, a line each.
#include <gtest/gtest.h>

#include <cmath>
#include <dds/order.hpp>
#include <functional>
#include <string>
#include <vector>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using Weights = const at::Tensor&;

struct Case {
  std::string name;
  std::vector<double> direction;
  std::string kind;
  double order;  ///< 0: none
  std::function<at::Tensor(Weights)> k;
  double t_max = 0.1;
};
void PrintTo(const Case& landscape, std::ostream* os) { *os << landscape.name; }

std::vector<Case> landscapes() {
  std::vector<Case> all;
  const auto add = [&](auto... fields) { all.push_back({fields...}); };
  const std::string gauge = "gauge", dead = "dead", no_minimum = "not_a_minimum", regular = "regular";
  const std::vector<double> x{1, 0}, y{0, 1}, third{0, 0, 1};

  // Curves of zeros that are tangent to the direction.
  // a = b = c^3
  add("SixthPower", third, gauge, 0., [](Weights w) { return (w[0] * w[1] - w[2].pow(6)).square(); });
  // a = c^2, b = 0
  add("Hyperbola", third, gauge, 0., [](Weights w) { return (w[0].square() - w[1].square() - w[2].pow(4)).square(); });
  // a = b = c^2
  add("TimesItsOwn", third, gauge, 0., [](Weights w) { return ((w[0] * w[1] - w[2].pow(4)) * w[2]).square(); });
  // (a^2/2)^2 - c^4 = 0 beside (1, 1): a = b = t^2 with c = d = t
  add("OfTwo", std::vector<double>{0, 0, 1, 1}, gauge, 0.,
      [](Weights w) { return (w[0] * w[1] - w[2].pow(3) * w[3]).square(); });
  // a = |c|^1.5
  add("Cusps", y, gauge, 0., [](Weights w) { return (w[0].pow(4) - w[1].pow(6)).square(); });
  // a = c^3, where the gradient leads
  add("Cubic", y, gauge, 0., [](Weights w) { return (w[0] - w[1].pow(3)).square(); });
  // a = b = c^2 / sqrt 3
  add("OnADiagonal", third, gauge, 0.,
      [](Weights w) { return (2 * w[0] * w[1] + w[0].square() - w[2].pow(4)).square() + (w[0] - w[1]).pow(4); });
  // y = x^2 and y = -x^2
  add("TwoParabolas", x, gauge, 0., [](Weights w) { return (w[1].square() - w[0].pow(4)).square(); });
  // The line itself: y = 0; b = 0; c = d; the generator (1, 0, 1) of the cone
  add("Face", x, gauge, 0., [](Weights w) { return w[0].square() * w[1].square() + w[1].pow(6); });
  add("Quadric", std::vector<double>{1, 0, 0}, gauge, 0.,
      [](Weights w) { return (w[0] * w[1] - w[2].square()).square(); });
  add("SumOfProducts", std::vector<double>{1, 1, 1, -1}, gauge, 0.,
      [](Weights w) { return (w[0] * w[1] + w[2] * w[3]).square(); });
  add("ConeAlong", std::vector<double>{1, 0, 1}, gauge, 0.,
      [](Weights w) { return (w[0].square() + w[1].square() - w[2].square()).square(); });

  // Zeros that are near, but not tangent: ab = c^2 and a^2 + b^2 = c^2 need |v| of the size of c.
  add("QuadricThird", third, dead, 2., [](Weights w) { return (w[0] * w[1] - w[2].square()).square(); });
  add("Cone", third, dead, 2., [](Weights w) { return (w[0].square() + w[1].square() - w[2].square()).square(); });
  // y = 0 and x = 0 are 45 degrees off
  add("FaceDiagonal", std::vector<double>{1, 1}, dead, 2.,
      [](Weights w) { return w[0].square() * w[1].square() + w[1].pow(6); });
  // c^3 = a^2: c = a^(2/3) is no tangent of a
  add("CuspAcross", x, dead, 2., [](Weights w) { return (w[0].square() - w[1].pow(3)).square(); });

  // Lowest where the line is, or on a curve that K rises along.
  add("FaceAcross", y, dead, 3., [](Weights w) { return w[0].square() * w[1].square() + w[1].pow(6); });
  // monomials (2, 4), (0, 8), (6, 2): all but y^8 vanish at x = 0, and none is negative
  add(
      "ThreeFaces", y, dead, 4.,
      [](Weights w) { return w[0].square() * w[1].pow(4) + w[1].pow(8) + w[0].pow(6) * w[1].square(); }, 0.3);
  // x^2 y^2 + y^4 is least at y = 0
  add("TwoFaces", x, dead, 3., [](Weights w) { return w[0].pow(6) + w[0].square() * w[1].square() + w[1].pow(4); });
  // y = -x^2/2 leaves x^4/2
  add("Slaved", x, dead, 2., [](Weights w) { return w[0].pow(4) + 2 * w[0].square() * w[1] + 2 * w[1].square(); });
  // y^2 = x^4 leaves x^10, ab = c^4 leaves c^10
  add(
      "RisingParabolas", x, dead, 5., [](Weights w) { return (w[1].square() - w[0].pow(4)).square() + w[0].pow(10); },
      0.3);
  add(
      "RisingProduct", third, dead, 5., [](Weights w) { return (w[0] * w[1] - w[2].pow(4)).square() + w[2].pow(10); },
      0.3);
  // y^2 = x^2 / 2 lies off at an angle; the form is positive, with 3/4 x^4 as its least
  add("PositiveForm", x, dead, 2., [](Weights w) { return w[0].pow(4) + w[1].pow(4) - w[0].square() * w[1].square(); });
  add("CubicAcross", x, regular, 1., [](Weights w) { return (w[0] - w[1].pow(3)).square(); });

  // No minimum. At x = -y^2 2^(1/3)..: x < 0, |y| > |x|^1.5
  add("OddFace", x, no_minimum, 0., [](Weights w) { return w[0].pow(4) + w[0] * w[1].square(); });
  // y > 0 and x = 0, or y < 0
  add("CubicSaddle", x, no_minimum, 0., [](Weights w) { return w[0].square() - w[1].pow(3); });
  add("CubicSaddleTurned", x, no_minimum, 0., [](Weights w) { return w[0].square() + w[1].pow(3); });
  add("CubicSaddleAlong", y, no_minimum, 0., [](Weights w) { return w[0].square() - w[1].pow(3); });
  add("QuinticSaddle", x, no_minimum, 0., [](Weights w) { return w[0].pow(4) - w[1].pow(5); });
  // -x^4 on x = y
  add("IndefiniteForm", x, no_minimum, 0.,
      [](Weights w) { return w[0].pow(4) + w[1].pow(4) - 3 * w[0].square() * w[1].square(); });
  // between the parabolas, at y^2 = 1.5 x^4
  add("BetweenParabolas", x, no_minimum, 0.,
      [](Weights w) { return (w[1].square() - w[0].pow(4)) * (w[1].square() - 2 * w[0].pow(4)); });
  // x = 0; beside the line of zeros y = 0 there is nothing below it, but w* is no minimum all the same
  add("NegativeFace", y, no_minimum, 0., [](Weights w) { return w[0].square() * w[1].square() - w[1].pow(6); });
  add("NegativeFaceAlong", x, no_minimum, 0., [](Weights w) { return w[0].square() * w[1].square() - w[1].pow(6); });
  return all;
}

class Landscapes : public testing::TestWithParam<Case> {};

/// In coordinates z = Q w, a random rotation, with regular ones beside those of K.
DirectionOrder order_in(const Case& landscape, std::int64_t regular) {
  const std::int64_t own = std::ssize(landscape.direction), d = own + regular;
  const at::Tensor q = test::orthonormal(d, d), curvature = torch::logspace(0, 2, regular, 10.0, torch::kDouble);
  std::vector<double> u = landscape.direction;
  u.resize(static_cast<std::size_t>(d));
  const Excess k = [&](Weights w) {
    const at::Tensor z = q.mv(w);
    return landscape.k(z) + (curvature * z.narrow(0, own, regular).square()).sum();
  };
  return direction_order(k, torch::zeros({d}, torch::kDouble), q.t().mv(torch::tensor(u, torch::kDouble)),
                         OrderOptions().t_max(landscape.t_max));
}

TEST_P(Landscapes, AreSeenThroughRotations) {
  const Case& landscape = GetParam();
  for (const std::int64_t regular : {0, 3}) {
    torch::manual_seed(test::seed(11 + static_cast<int>(regular)));
    const DirectionOrder found = order_in(landscape, regular);
    EXPECT_EQ(to_string(found.kind), landscape.kind) << found.reason << " beside " << regular;
    if (landscape.order > 0) {
      EXPECT_NEAR(found.order.value_or(0), landscape.order, 0.06) << regular;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ByHand, Landscapes, testing::ValuesIn(landscapes()),
                         [](const auto& info) { return info.param.name; });

// a^2 = c^3 has a curve of zeros for c > 0 only: along c > 0 it is a gauge, along c < 0 the order is 3.
TEST(Landscape, WithACurveOfZerosOnOneSideAreNotDecided) {
  const Excess k = [](Weights w) { return (w[0].square() - w[1].pow(3)).square(); };
  const DirectionOrder found =
      direction_order(k, torch::zeros({2}, torch::kDouble), torch::tensor({0.0, 1.0}, torch::kDouble));
  EXPECT_EQ(to_string(found.kind), "undecided");
  EXPECT_NE(found.reason.find("K is zero beside t = "), std::string::npos) << found.reason;
}

// What the starts in flat directions cost where they find nothing: no more than a few thousand values of K.
TEST(Landscape, OfADeadDirectionAreSearchedOnce) {
  int calls = 0;
  const Excess k = [&](Weights w) {
    ++calls;
    return (w[0] * w[1] - w[2].pow(4)).square() + (w[0] * w[1] + w[2].pow(4)).square();
  };
  const DirectionOrder found =
      direction_order(k, torch::zeros({3}, torch::kDouble), torch::tensor({0.0, 0.0, 1.0}, torch::kDouble));
  EXPECT_EQ(to_string(found.kind), "dead") << found.reason;
  EXPECT_LT(calls, 2000);
}

}  // namespace
}  // namespace dds
