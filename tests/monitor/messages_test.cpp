// What a monitor tells the logger, and what a signal does to a loop.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <csignal>
#include <dds/interrupt.hpp>
#include <dds/logger.hpp>
#include <dds/monitor.hpp>
#include <dds/read.hpp>

#include "tests/support.hpp"

namespace dds {
namespace {

class MessagesTest : public testing::Test {
 protected:
  void SetUp() override {
    set_logger([this](Level level, std::string_view message) {
      heard_.push_back(std::string(to_string(level)) + ": " + std::string(message));
    });
  }
  void TearDown() override { set_logger(nullptr); }

  static void train(Monitor& monitor, torch::nn::Linear& model) {
    auto step = monitor.step();
    model->forward(torch::randn({8, 3})).square().sum().backward();
  }
  std::vector<std::string> errors_heard() const {
    std::vector<std::string> errors;
    std::copy_if(heard_.begin(), heard_.end(), std::back_inserter(errors),
                 [](const std::string& message) { return message.starts_with("error: "); });
    return errors;
  }
  std::vector<std::string> heard_;
};

TEST_F(MessagesTest, AStatusIsToldOnceASeries) {
  torch::nn::Linear model(3, 2);
  Monitor monitor(*model, MonitorOptions().every(1), std::make_shared<log::Memory>());  // Mean, and no loss that tells
  for (int i = 0; i < 3; ++i) train(monitor, model);
  EXPECT_EQ(heard_,
            std::vector<std::string>{"warning: (root), fisher side (step, empirical), step 0: reduction_unknown"})
      << "one message";
}

TEST_F(MessagesTest, EveryReadingIsToldToThoseWhoAsk) {
  std::vector<std::string> all;
  set_logger([&](Level level, std::string_view message) { all.emplace_back(message); }, Level::Debug);
  torch::nn::Linear model(3, 2);
  Monitor monitor(*model, MonitorOptions().every(2).reduction(Reduction::Sum), std::make_shared<log::Memory>());
  for (int i = 0; i < 3; ++i) train(monitor, model);
  const auto readings = [&](const std::string& step) {
    return std::count_if(all.begin(), all.end(),
                         [&](const std::string& m) { return m.starts_with("step " + step + ": 1 layer read in "); });
  };
  EXPECT_EQ(readings("0"), 1);
  EXPECT_EQ(readings("1"), 0);
  EXPECT_EQ(readings("2"), 1);
  set_logger(nullptr);
}

/// A disk that is full.
class Full final : public log::Sink {
  void write(const Signature&) override { throw IoError("no space left"); }
  void write(const LlcEstimate&) override {}
  void write(const Metric&) override {}
  void describe(const std::string&, const std::string&) override {}
};

TEST_F(MessagesTest, ALogThatCannotBeWrittenIsToldOnceAndCounted) {
  torch::nn::Linear model(3, 2);
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    heard_.clear();
    {
      Monitor monitor(*model, MonitorOptions().every(1).reduction(Reduction::Sum).worker(worker),
                      std::make_shared<Full>());
      for (int i = 0; i < 3; ++i) train(monitor, model);
    }
    EXPECT_EQ(errors_heard(), (std::vector<std::string>{"error: Monitor: no space left; the training goes on",
                                                        "error: Monitor: 6 errors in all"}));
  }
}

/// A callback of the user's that gives up.
class Broken final : public log::Sink {
  void write(const Signature&) override { throw InvalidArgument("no such column"); }
  void write(const LlcEstimate&) override {}
  void write(const Metric&) override {}
  void describe(const std::string&, const std::string&) override {}
};

TEST_F(MessagesTest, AnErrorThatNoCallCanThrowAnyMoreIsTold) {
  torch::nn::Linear model(3, 2);
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    heard_.clear();
    {
      Monitor monitor(*model, MonitorOptions().every(1).reduction(Reduction::Sum).worker(worker),
                      std::make_shared<Broken>());
      train(monitor, model);
    }
    EXPECT_EQ(errors_heard(), std::vector<std::string>{"error: Monitor: when it ended: no such column"});
  }
}

TEST_F(MessagesTest, AMonitorWithoutAStepIsTold) {
  torch::nn::Linear model(3, 2);
  { const Monitor unused(*model, MonitorOptions(), std::make_shared<log::Memory>()); }
  EXPECT_EQ(heard_,
            std::vector<std::string>{"warning: Monitor: the monitor ended without a step, so nothing was read: a "
                                     "training loop calls Monitor::step()"});
}

TEST_F(MessagesTest, ADueStepThatIsDroppedIsTold) {
  torch::nn::Linear model(3, 2);
  Monitor monitor(*model, MonitorOptions().every(2), std::make_shared<log::Memory>());
  monitor.step().abandon();
  try {
    auto step = monitor.step();
    throw std::runtime_error("a batch that cannot be read");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(heard_, (std::vector<std::string>{"info: Monitor: step 0 is due and not read: it was abandoned",
                                              "warning: Monitor: step 0 is due and not read: an exception left it"}));
  train(monitor, model);
  heard_.clear();
  monitor.step().abandon();  // not due
  EXPECT_TRUE(heard_.empty());
}

TEST_F(MessagesTest, ATapThatDoesNotRunIsTold) {
  torch::nn::Linear model(3, 2);
  const auto options = SignatureOptions().layers({"tap:typo"}).sides({Side::Activation});
  read({*model, gaussian(), torch::randn({8, 3})}, ReadOptions().signatures(options));
  Monitor monitor(*model, MonitorOptions().every(1).reduction(Reduction::Sum).signatures(options),
                  std::make_shared<log::Memory>());
  for (int i = 0; i < 2; ++i) train(monitor, model);
  EXPECT_EQ(heard_, std::vector<std::string>{"warning: tap:typo, activation side (step), step 0: not_run"});
}

/// Builds an fp32 tensor of its own, which no fp64 weight can be multiplied with.
struct FixedDtype : torch::nn::Module {
  FixedDtype() { weight = register_parameter("weight", torch::randn({3, 2})); }
  at::Tensor forward(const at::Tensor& x) { return torch::matmul(x.to(torch::kFloat), weight); }
  at::Tensor weight;
};

TEST_F(MessagesTest, AReadThatIsNotInFp64IsTold) {
  FixedDtype model;
  read({model, gaussian(), Data(torch::randn({8, 3}))});
  ASSERT_EQ(heard_.size(), 1u);
  EXPECT_TRUE(heard_[0].starts_with("warning: read: in the model's own dtype, since it does not run in fp64: "))
      << heard_[0];
}

class Interrupt : public testing::TestWithParam<int> {};

TEST_P(Interrupt, TheFirstSignalIsNotedAndTheHandlersComeBack) {
  // A shell that starts the tests in its background has them ignore SIGINT.
  struct sigaction found, before = {}, after;
  before.sa_handler = SIG_DFL;
  sigaction(GetParam(), &before, &found);
  {
    const CatchInterrupts outer;
    EXPECT_FALSE(interrupted());
    {
      const CatchInterrupts inner;
      std::raise(GetParam());
      EXPECT_TRUE(interrupted());
    }
    EXPECT_TRUE(interrupted());
    struct sigaction second;
    sigaction(GetParam(), nullptr, &second);
    EXPECT_EQ(second.sa_handler, SIG_DFL) << "a second signal ends the process";
  }
  sigaction(GetParam(), nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
  {
    const CatchInterrupts again;
    EXPECT_FALSE(interrupted());
  }
  sigaction(GetParam(), &found, nullptr);
}

INSTANTIATE_TEST_SUITE_P(Signals, Interrupt, testing::Values(SIGINT, SIGTERM),
                         [](const auto& info) { return info.param == SIGINT ? "int" : "term"; });

TEST(InterruptTest, WhatIsIgnoredStaysIgnored) {
  struct sigaction ignore = {}, before, now;
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGINT, &ignore, &before);
  {
    const CatchInterrupts catching;
    sigaction(SIGINT, nullptr, &now);
    EXPECT_EQ(now.sa_handler, SIG_IGN);
  }
  sigaction(SIGINT, &before, nullptr);
}

TEST(InterruptTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        std::signal(SIGINT, SIG_DFL);
        const CatchInterrupts catching;
        std::raise(SIGINT);
        if (interrupted()) std::raise(SIGINT);
        std::_Exit(0);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace dds
