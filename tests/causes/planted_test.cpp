// Causes planted in networks, one and several at a time, against counts by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/causes/networks.hpp"

namespace dds {
namespace {

using test::causes_of;
using test::Chain;
using test::reading_of;

/// Every reading's counts add up, and every tested cause lies in what is dead.
void expect_whole(const std::vector<Signature>& signatures) {
  for (const Signature& s : signatures) {
    const testing::Message where = testing::Message() << s.layer << " " << to_string(s.side);
    ASSERT_TRUE(s.dead_by_architecture && s.dead_explained && s.dead_unexplained) << where;
    EXPECT_EQ(*s.dead_by_architecture + *s.dead_explained + *s.dead_unexplained, *s.width - *s.rank) << where;
    if (s.dead_directions) {
      EXPECT_EQ(*s.dead_explained + *s.dead_unexplained, *s.dead_directions) << where;
    }
    std::int64_t by_architecture = 0, explained = 0, unexplained = 0;
    for (const Cause& cause : s.causes) {
      EXPECT_GT(cause.directions, 0) << where;
      std::int64_t& count = is_by_architecture(cause.kind)         ? by_architecture
                            : cause.kind == CauseKind::Unexplained ? unexplained
                                                                   : explained;
      count += cause.directions;
      if (!cause.axes.defined()) continue;
      EXPECT_EQ(cause.axes.size(0), cause.directions) << where;
      EXPECT_LT(*cause.angle, 1e-6) << where;
    }
    EXPECT_EQ(by_architecture, *s.dead_by_architecture) << where;
    EXPECT_EQ(explained, *s.dead_explained) << where;
    EXPECT_EQ(unexplained, *s.dead_unexplained) << where;
    EXPECT_EQ(to_string(causes_from_string(to_string(s.causes))), to_string(s.causes)) << where;
  }
}

/// 12 inputs, two hidden layers of 24, 5 classes. Its generic ranks are 13 of 24 in fc0 (12 inputs and the bias), 24 in
/// fc1 and 5 in fc2; on the Fisher sides 24, 24 and 4.
class Planted : public testing::Test {
 protected:
  Planted() { torch::manual_seed(test::seed(3)); }

  std::vector<Signature> read(Chain& net, std::int64_t samples = 300) const {
    auto signatures = dds::read({net, categorical(), Data(torch::randn({samples, 12}))});
    expect_whole(signatures);
    return signatures;
  }
  std::string found(Chain& net) const { return causes_of(read(net)); }

  Chain relu{{12, 24, 24, 5}, test::relu_of};
  Chain tanh{{12, 24, 24, 5}, test::tanh_of};
  Chain linear{{12, 24, 24, 24, 24}, nullptr};
};

void zero_rows(const at::Tensor& tensor, std::initializer_list<std::int64_t> rows) {
  for (const std::int64_t row : rows) tensor[row].zero_();
}

TEST_F(Planted, NothingInAFreshNetwork) {
  for (Chain* net : {&relu, &tanh, &linear}) {
    const auto signatures = read(*net);
    EXPECT_EQ(causes_of(signatures), "");
    EXPECT_EQ(to_string(reading_of(signatures, "fc0", Side::Activation).causes), "shape:11");
  }
  const auto signatures = read(relu);
  const Signature& last = reading_of(signatures, "fc2", Side::Fisher);
  EXPECT_EQ(to_string(last.causes), "softmax:1");
  EXPECT_LT(*last.causes.at(0).angle, 1e-10);
}

// fc1 has what 24 - 3 units and its bias give: 22.
TEST_F(Planted, UnitsThatAreOff) {
  for (const std::int64_t unit : {3, 8, 9}) relu.bias(0)[unit] = -1000;
  const auto signatures = read(relu);
  EXPECT_EQ(causes_of(signatures),
            "fc0 fisher: relu_off:3[3,8-9]\n"
            "fc1 activation: upstream:2(fc0)\n");
  EXPECT_EQ(reading_of(signatures, "fc0", Side::Fisher).causes.at(0).angle, 0);
}

TEST_F(Planted, AUnitThatIsOnForOneRowIsAlive) {
  relu.to(torch::kDouble);
  const at::Tensor x = torch::randn({300, 12}, torch::kDouble);
  const at::Tensor two = std::get<0>(relu.layers[0](x).detach().select(1, 5).topk(2));
  relu.bias(0)[5] -= two.mean();
  EXPECT_EQ(causes_of(dds::read({relu, categorical(), Data(x)})), "");
  relu.bias(0)[5] -= two[0] - two.mean();
  EXPECT_EQ(causes_of(dds::read({relu, categorical(), Data(x)})), "fc0 fisher: relu_off:1[5]\n");
}

// Of what fc1 reads 21 units are left, and its bias.
TEST_F(Planted, NoWeightsOutOfUnits) {
  zero_rows(relu.weight(1).t(), {2, 7, 11});
  EXPECT_EQ(found(relu),
            "fc0 fisher: outgoing_zero:3[2,7,11]\n"
            "fc1 activation: outgoing_zero:2[2,7,11](fc0)\n");
}

TEST_F(Planted, UnitsThatAreOffAndOthersWithoutWeightsOut) {
  zero_rows(relu.weight(1).t(), {2, 7, 11});
  for (const std::int64_t unit : {3, 7, 8}) relu.bias(0)[unit] = -1000;  // 5 together: 19 and the bias
  EXPECT_EQ(found(relu),
            "fc0 fisher: relu_off:3[3,7-8] outgoing_zero:2[2,11]\n"
            "fc1 activation: outgoing_zero:2[2,7,11](fc0) upstream:2(fc0)\n");
}

// Three constant units fill one dimension.
TEST_F(Planted, NoWeightsIntoUnits) {
  zero_rows(relu.weight(1), {4, 10, 20});
  for (const std::int64_t unit : {4, 10, 20}) relu.bias(1)[unit] = 0.1 * static_cast<double>(unit);
  EXPECT_EQ(found(relu), "fc1 activation: incoming_zero:2[4,10,20]\n");
  zero_rows(relu.bias(1), {4, 10, 20});
  EXPECT_EQ(found(relu), "fc1 activation: incoming_zero:3[4,10,20]\nfc1 fisher: relu_off:3[4,10,20]\n");
}

TEST_F(Planted, UnitsThatAreEqualOrOpposite) {
  const auto copy = [&](std::int64_t to, std::int64_t from, double sign) {
    relu.weight(1)[to] = relu.weight(1)[from] * sign;
    relu.bias(1)[to] = relu.bias(1)[from] * sign;
  };
  copy(7, 2, 1);
  EXPECT_EQ(found(relu), "fc1 activation: duplicate:1[2,7]\n");
  copy(9, 2, -1);
  copy(15, 14, 1);
  EXPECT_EQ(found(relu), "fc1 activation: duplicate:3[2,7,9,14-15]\n");
}

// Equal units of fc0 are one to fc1: of four pairs 20 units and the bias are left, so 21.
TEST_F(Planted, EqualUnitsBefore) {
  for (std::int64_t unit = 0; unit < 8; unit += 2) {
    relu.weight(0)[unit + 1] = relu.weight(0)[unit];
    relu.bias(0)[unit + 1] = relu.bias(0)[unit];
  }
  EXPECT_EQ(found(relu), "fc1 activation: upstream:3(fc0)\n");
}

TEST_F(Planted, UnitsThatAreCombinationsOfOthers) {
  const auto combine = [&](std::int64_t to, std::int64_t a, std::int64_t b) {
    relu.weight(1)[to] = 2 * relu.weight(1)[a] - 0.5 * relu.weight(1)[b];
    relu.bias(1)[to] = 2 * relu.bias(1)[a] - 0.5 * relu.bias(1)[b];
  };
  relu.to(torch::kDouble);
  combine(5, 1, 20);
  EXPECT_EQ(found(relu), "fc1 activation: combination:1[1,5,20]\n");
  combine(6, 2, 21);
  EXPECT_EQ(found(relu), "fc1 activation: combination:2[1-2,5-6,20-21]\n");
}

// What fc0 lost leaves 22 of fc1; that one of its units is a combination of two others is seen all the same.
TEST_F(Planted, ACombinationBehindALostRank) {
  relu.to(torch::kDouble);
  for (const std::int64_t unit : {3, 8, 9}) relu.bias(0)[unit] = -1000;
  for (const at::Tensor& parameter : {relu.weight(1), relu.bias(1)}) parameter[5] = parameter[1] - 2 * parameter[20];
  EXPECT_EQ(found(relu),
            "fc0 fisher: relu_off:3[3,8-9]\n"
            "fc1 activation: combination:1[1,5,20] upstream:1(fc0)\n");
}

// Beyond 60 a tanh is 1 to the last digit, so fc1 has 22 units and its bias.
TEST_F(Planted, UnitsThatAreSaturated) {
  tanh.bias(0)[1] = 60;
  tanh.bias(0)[2] = -60;
  EXPECT_EQ(found(tanh), "fc0 fisher: saturated:2[1-2]\nfc1 activation: upstream:1(fc0)\n");
}

// fc1 has outputs of rank 10 and a bias. Nothing that is looked for tells why, and nothing is made up.
TEST_F(Planted, AWeightOfLowRankIsNotExplained) {
  relu.to(torch::kDouble);
  relu.weight(1).copy_(torch::randn({24, 10}, torch::kDouble).mm(torch::randn({10, 24}, torch::kDouble)));
  EXPECT_EQ(found(relu), "fc1 activation: unexplained:13\n");
}

// fc0 gives 6 dimensions and its bias, and so do all behind it.
TEST_F(Planted, ARankLostUpstream) {
  linear.to(torch::kDouble);
  linear.weight(0).copy_(torch::randn({24, 6}, torch::kDouble).mm(torch::randn({6, 12}, torch::kDouble)));
  EXPECT_EQ(found(linear),
            "fc0 activation: unexplained:6\n"
            "fc1 activation: upstream:6(fc0)\n"
            "fc2 activation: upstream:6(fc1)\n"
            "fc3 activation: upstream:6(fc2)\n");
}

// A shift of the 24 logits changes nothing, so gradients have 23 dimensions everywhere. Without weights out of four
// units of fc1 there are 20 before.
TEST_F(Planted, ARankLostDownstream) {
  zero_rows(linear.weight(2).t(), {1, 2, 3, 4});
  const auto signatures = read(linear);
  EXPECT_EQ(causes_of(signatures), "fc0 fisher: downstream:3(fc1)\nfc1 fisher: outgoing_zero:3[1-4]\n");
  EXPECT_EQ(reading_of(signatures, "fc1", Side::Fisher).dead_by_architecture, 1);
}

TEST_F(Planted, SeveralAtOnce) {
  for (const std::int64_t unit : {1, 2}) relu.bias(0)[unit] = -1000;
  relu.weight(1)[5] = relu.weight(1)[4];
  relu.bias(1)[5] = relu.bias(1)[4];
  zero_rows(relu.weight(1), {7, 8, 9});
  for (const std::int64_t unit : {7, 8, 9}) relu.bias(1)[unit] = 1;
  zero_rows(relu.weight(2).t(), {20});
  EXPECT_EQ(found(relu),
            "fc0 fisher: relu_off:2[1-2]\n"
            "fc1 activation: incoming_zero:2[7-9] duplicate:1[4-5]\n"
            "fc1 fisher: outgoing_zero:1[20]\n");
}

TEST_F(Planted, TooFewRowsAreTheProbes) {
  const auto signatures = read(relu, 10);
  EXPECT_EQ(causes_of(signatures), "");
  EXPECT_EQ(to_string(reading_of(signatures, "fc1", Side::Activation).causes), "probe:14");
  EXPECT_EQ(to_string(reading_of(signatures, "fc0", Side::Activation).causes), "shape:11 probe:3");
}

}  // namespace
}  // namespace dds
