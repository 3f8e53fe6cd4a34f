// When parameters change, and how many changes make a step.
#include "src/attach/updates.hpp"

#include <gmock/gmock.h>
#include <torch/torch.h>

namespace dds::attach {
namespace {

using Event = Steps::Event;
using testing::ElementsAre;

class StepsTest : public testing::Test {
 protected:
  /// Parameters stand for themselves by their addresses.
  std::set<TensorId> set(std::initializer_list<int> numbers) const {
    std::set<TensorId> ids;
    for (const int number : numbers) ids.insert(parameters_[static_cast<std::size_t>(number)].unsafeGetTensorImpl());
    return ids;
  }
  std::vector<torch::Tensor> parameters_{torch::zeros(1), torch::zeros(1), torch::zeros(1), torch::zeros(1)};
  Steps steps_;
};

TEST_F(StepsTest, OneOptimiserHasOneUpdateAStep) {
  for (int step = 0; step < 4; ++step) {
    EXPECT_EQ(steps_.step(), step);
    EXPECT_TRUE(steps_.last_update_is_next());
    EXPECT_EQ(steps_.update(set({0, 1}), set({0, 1})), Event::Ends);
    EXPECT_TRUE(steps_.begins());
  }
  EXPECT_TRUE(steps_.certain());
  EXPECT_EQ(steps_.updates_per_step(), 1);
}

TEST_F(StepsTest, TwoOptimisersHaveTwo) {
  const auto used = set({0, 1, 2, 3});
  for (int step = 0; step < 4; ++step) {
    EXPECT_EQ(steps_.step(), step);
    EXPECT_EQ(steps_.update(set({0, 1}), used), Event::Within);
    EXPECT_TRUE(steps_.last_update_is_next());
    EXPECT_EQ(steps_.update(set({2, 3}), used), Event::Ends);
  }
  EXPECT_EQ(steps_.updates_per_step(), 2);
}

TEST_F(StepsTest, WhatIsUsedLaterReopensTheFirstStep) {
  // The second network runs without grad mode before its own turn.
  EXPECT_EQ(steps_.update(set({0}), set({0})), Event::Ends);
  EXPECT_EQ(steps_.step(), 1);
  EXPECT_EQ(steps_.update(set({1}), set({0, 1})), Event::Reopens);
  EXPECT_EQ(steps_.step(), 1);
  EXPECT_TRUE(steps_.begins());
  EXPECT_EQ(steps_.update(set({0}), set({0, 1})), Event::Within);
  EXPECT_EQ(steps_.updates_per_step(), 2);
  EXPECT_EQ(steps_.update(set({1}), set({0, 1})), Event::Ends);
  EXPECT_EQ(steps_.step(), 2);
}

TEST_F(StepsTest, WhereAUsedParameterIsNeverUpdatedTheFirstStepIsLost) {
  EXPECT_EQ(steps_.update(set({0}), set({0, 1})), Event::Within);
  EXPECT_EQ(steps_.step(), 0);
  EXPECT_EQ(steps_.update(set({0}), set({0, 1})), Event::Skips);
  EXPECT_EQ(steps_.step(), 2);
  EXPECT_TRUE(steps_.begins());
  EXPECT_EQ(steps_.update(set({0}), set({0, 1})), Event::Ends);
}

struct Write {
  std::string name;
  std::function<void(torch::Tensor&)> write;
  bool shows_without_elements;
};

TEST_F(StepsTest, APatternThatNeverComesAgainWasNone) {
  // One update of one network, and then another network alone.
  const auto used = set({0});
  EXPECT_EQ(steps_.update(set({0}), used), Event::Ends);
  EXPECT_EQ(steps_.update(set({1}), used), Event::Reopens);
  EXPECT_EQ(steps_.update(set({1}), used), Event::Within);
  EXPECT_EQ(steps_.update(set({1}), used), Event::Skips);
  EXPECT_EQ(steps_.step(), 4) << "each update is a step";
  EXPECT_EQ(steps_.update(set({1}), used), Event::Ends);
  EXPECT_EQ(steps_.step(), 5);
}

TEST_F(StepsTest, AfterTwoNetworksOneTrainsAlone) {
  const auto used = set({0, 1});
  for (int step = 0; step < 3; ++step) {
    steps_.update(set({0}), used);
    steps_.update(set({1}), used);
  }
  EXPECT_EQ(steps_.step(), 3);
  for (int step = 0; step < 4; ++step) steps_.update(set({0}), used);
  EXPECT_EQ(steps_.step(), 7);
  EXPECT_EQ(steps_.updates_per_step(), 1);
}

TEST_F(StepsTest, WhatMayHaveChangedBreaksNoPattern) {
  const auto used = set({0, 1});
  for (int step = 0; step < 3; ++step) {
    steps_.update(set({0}), used);
    steps_.update(step == 0 ? set({1}) : set({0, 1}), used, /*sure=*/step == 0);
  }
  EXPECT_EQ(steps_.updates_per_step(), 2);
  EXPECT_EQ(steps_.step(), 3);
}

TEST(WatchOfGradients, FewRowsOfATableShow) {
  torch::Tensor table = torch::zeros({20000, 16}, torch::requires_grad());
  const std::vector<torch::Tensor> tables{table};
  torch::embedding(table, torch::tensor({12345, 777})).sum().backward();
  Watch by_gradient, spaced;
  by_gradient.remember(tables, {.by_gradient = 8});
  spaced.remember(tables, {.spaced = 64});
  EXPECT_FALSE(by_gradient.gradients_cleared(tables));
  table.data().sub_(0.1 * table.grad());
  EXPECT_TRUE(by_gradient.changed(table));
  EXPECT_FALSE(spaced.changed(table)) << "then this test shows nothing";
  table.mutable_grad().zero_();
  EXPECT_TRUE(by_gradient.gradients_cleared(tables));
  table.mutable_grad().reset();
  EXPECT_TRUE(by_gradient.gradients_cleared(tables));
}

TEST(WatchOfGradients, OfASparseGradientToo) {
  torch::Tensor table = torch::zeros({20000, 16}, torch::requires_grad());
  torch::embedding(table, torch::tensor({12345, 777}), -1, false, /*sparse=*/true).sum().backward();
  ASSERT_TRUE(table.grad().is_sparse());
  Watch watch;
  watch.remember({table}, {.by_gradient = 8});
  EXPECT_FALSE(watch.changed(table));
  table.data()[777].add_(1);
  EXPECT_TRUE(watch.changed(table));
}

class WatchTest : public testing::TestWithParam<Write> {};

TEST_P(WatchTest, EveryWriteShows) {
  torch::Tensor written = torch::arange(10000.), other = torch::arange(10000.);
  const std::vector<torch::Tensor> both{written, other};
  Watch with, without;
  with.remember(both, {.spaced = 64});
  without.remember(both, {});
  EXPECT_TRUE(with.changed(both).empty());
  GetParam().write(written);
  EXPECT_THAT(with.changed(both), ElementsAre(written.unsafeGetTensorImpl()));
  EXPECT_EQ(without.changed(written), GetParam().shows_without_elements);
  EXPECT_EQ(with.by_version(with.changed(both), both), GetParam().name == "in_place");
  EXPECT_FALSE(with.changed(torch::zeros(1)));
}

INSTANTIATE_TEST_SUITE_P(Writes, WatchTest,
                         testing::Values(Write{"in_place", [](torch::Tensor& t) { t.add_(1); }, true},
                                         Write{"data", [](torch::Tensor& t) { t.data().add_(1); }, false},
                                         Write{"set_data", [](torch::Tensor& t) { t.set_data(t + 1); }, true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dds::attach
