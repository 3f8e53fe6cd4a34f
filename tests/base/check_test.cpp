// The one form of the library's messages, and facts about types.
#include "src/base/check.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <memory>

#include "src/base/dtype.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;

TEST(Check, SaysWhatIsWrongAndWhatWasExpected) {
  EXPECT_EQ(message_of([] { check_at_least("read", "rows", 0, 1); }), "read: rows is 0, expected at least 1");
  EXPECT_EQ(message_of([] { check_within("f", "rank", 7, 0, 3); }), "f: rank is 7, expected at least 0 and at most 3");
  EXPECT_EQ(message_of([] { check_between("f", "p", 1, 0, 1); }), "f: p is 1, expected a number between 0 and 1");
  EXPECT_EQ(message_of([] { check_positive("f", "x", INFINITY); }), "f: x is inf, expected a positive number");
  EXPECT_EQ(message_of([] {
              check_finite("f", "y", std::vector{1.0, NAN});
            }),
            "f: y[1] is nan, expected a finite number");
  EXPECT_EQ(message_of([] { check_as_many("f", "y", 2, "x", 3); }), "f: the size of y is 2, expected 3, the size of x");
  EXPECT_EQ(message_of([] { check_given("f", "hook", std::function<void()>(), "one"); }),
            "f: hook is null, expected one");
  EXPECT_EQ(message_of([] { check_not_empty("f", "names", std::string(), "some"); }),
            "f: names is empty, expected some");
  EXPECT_EQ(message_of([] { check(false, "f", "end", 5, "at most {}, the size of {}", 3, "x"); }),
            "f: end is 5, expected at most 3, the size of x");
}

TEST(Check, PutsValuesIntoWordsByTheirType) {
  const at::Tensor tensor = torch::zeros({3, 4});
  EXPECT_EQ(value_text(tensor), "Float [3, 4]");
  EXPECT_EQ(value_text(at::Tensor()), "undefined");
  EXPECT_EQ(value_text(tensor.sizes()), "[3, 4]");
  EXPECT_EQ(value_text(std::string("fc1")), "'fc1'");
  EXPECT_EQ(value_text(std::int64_t{3}), "3");
  EXPECT_EQ(value_text(0.1), "0.1");
}

TEST(Check, PassesWhatIsRight) {
  EXPECT_NO_THROW(check_at_least("f", "x", 1, 1));
  EXPECT_NO_THROW(check_within("f", "x", 3, 0, 3));
  EXPECT_NO_THROW(check_between("f", "x", 0.5, 0, 1));
  EXPECT_NO_THROW(check_positive("f", "x", 1e-300));
  EXPECT_NO_THROW(check_finite("f", "x", {}));
  EXPECT_NO_THROW(check_given("f", "x", std::make_unique<int>(), "one"));
}

TEST(Check, ANumberThatIsNoneIsNeverRight) {
  EXPECT_THROW(check_at_least("f", "x", NAN, 0), InvalidArgument);
  EXPECT_THROW(check_within("f", "x", NAN, 0, 1), InvalidArgument);
  EXPECT_THROW(check_between("f", "x", NAN, 0, 1), InvalidArgument);
  EXPECT_THROW(check_positive("f", "x", NAN), InvalidArgument);
}

class MachineEpsilon : public testing::TestWithParam<at::ScalarType> {};

TEST_P(MachineEpsilon, IsTheDistanceFromOneToTheNextNumber) {
  const double eps = machine_epsilon(GetParam(), "test");
  const auto rounded = [](double x) { return torch::full({}, x, torch::kDouble).to(GetParam()).item<double>(); };
  EXPECT_EQ(rounded(1 + eps), 1 + eps);
  EXPECT_EQ(rounded(1 + 0.49 * eps), 1);
}

INSTANTIATE_TEST_SUITE_P(Types, MachineEpsilon, testing::Values(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16));

TEST(MachineEpsilonOf, AnotherTypeIsRefused) {
  EXPECT_EQ(message_of([] { machine_epsilon(at::kLong, "read"); }),
            "read: dtype is Long, expected Double, Float, Half or BFloat16");
}

}  // namespace
}  // namespace dds
