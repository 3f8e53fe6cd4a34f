// What may follow what in the recording of a step.
#include "src/attach/recording.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <dds/error.hpp>

namespace dds::attach {
namespace {

using State = Recording::State;

class RecordingTest : public testing::Test {
 protected:
  std::shared_ptr<log::Memory> memory_ = std::make_shared<log::Memory>();
  Recording recording_{Settings(), std::make_shared<Leaves>(std::vector<ModuleTree*>{}), memory_, nullptr};
};

TEST_F(RecordingTest, OneOfThisStepIsRead) {
  recording_.begin(State::ThisStep, 0);
  EXPECT_EQ(recording_.state(), State::ThisStep);
  const torch::Tensor weight = torch::randn({3, 5}, torch::requires_grad());
  torch::randn({8, 5}).matmul(weight.t()).sum().backward();
  EXPECT_EQ(recording_.read(), 0);
  EXPECT_EQ(recording_.state(), State::Off);
  EXPECT_EQ(recording_.monitor().steps(), 1);
  ASSERT_EQ(memory_->signatures.size(), 2u);
  EXPECT_EQ(memory_->signatures.front().layer, "leaf1 [3x5]");
}

TEST_F(RecordingTest, OneOfTheNextStepBecomesOneOfThis) {
  recording_.begin(State::NextStep, 7);
  EXPECT_EQ(recording_.monitor().steps(), 7) << "those before were not due";
  recording_.next_step_begins();
  EXPECT_TRUE(recording_.of_this_step());
  EXPECT_EQ(recording_.read(), 7);
}

TEST_F(RecordingTest, AnAbandonedStepDoesNotCount) {
  for (const State of : {State::NextStep, State::ThisStep}) {
    recording_.begin(of, 2);
    recording_.abandon();
    EXPECT_FALSE(recording_.on());
    EXPECT_EQ(recording_.monitor().steps(), 2);
  }
  recording_.abandon();
  EXPECT_TRUE(memory_->signatures.empty());
}

TEST_F(RecordingTest, NothingElseFollows) {
  EXPECT_THROW(recording_.read(), InvalidArgument);
  EXPECT_THROW(recording_.next_step_begins(), InvalidArgument);
  EXPECT_THROW(recording_.begin(State::Off, 0), InvalidArgument);
  recording_.begin(State::NextStep, 0);
  EXPECT_THROW(recording_.read(), InvalidArgument) << "of a step that has not begun";
  EXPECT_THROW(recording_.begin(State::ThisStep, 0), InvalidArgument) << "two at a time";
  recording_.next_step_begins();
  EXPECT_THROW(recording_.next_step_begins(), InvalidArgument);
  EXPECT_EQ(recording_.state(), State::ThisStep) << "what was refused changes nothing";
}

}  // namespace
}  // namespace dds::attach
