#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <dds/error.hpp>
#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <filesystem>
#include <functional>
#include <future>
#include <map>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace F = torch::nn::functional;
using test::message_of;
using testing::ElementsAre;
using testing::HasSubstr;

torch::nn::Sequential small_net() {
  return torch::nn::Sequential(torch::nn::Linear(6, 5), torch::nn::Tanh(), torch::nn::Linear(5, 4));
}

std::shared_ptr<log::Memory> memory() { return std::make_shared<log::Memory>(); }

/// Runs one captured step with `loss` and gives the signature of the last layer's Fisher side.
template <class Loss>
Signature fisher_of(torch::nn::Sequential& net, Reduction reduction, const at::Tensor& x, const Loss& loss) {
  const auto sink = memory();
  Monitor monitor(
      *net,
      MonitorOptions().every(1).reduction(reduction).signatures(SignatureOptions().layers({"2"}).sides({Side::Fisher})),
      sink);
  {
    auto step = monitor.step();
    loss(net->forward(x)).backward();
  }
  return sink->signatures.at(0);
}

// ---- training is left alone ----

class EveryKindMonitored : public testing::TestWithParam<std::tuple<test::LayerKind, int>> {};

TEST_P(EveryKindMonitored, TrainsBitForBitAsWithout) {
  const auto& [kind, threads] = GetParam();
  const int before = torch::get_num_threads();
  torch::set_num_threads(threads);
  const auto train = [&, &kind = kind](bool attached) {
    torch::manual_seed(5);
    const auto net = test::make_net(kind);
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(1e-4).momentum(0.9));
    std::optional<Monitor> monitor;
    if (attached) monitor.emplace(*net, MonitorOptions().every(2).reduction(Reduction::Sum), memory());
    for (int i = 0; i < 4; ++i) {
      std::optional<Monitor::Step> step;
      if (monitor) step.emplace(monitor->step());
      optimizer.zero_grad();
      net->forward(kind.input()).relu_().pow(2).sum().backward();
      optimizer.step();
    }
    return torch::nn::utils::parameters_to_vector(net->parameters());
  };
  const at::Tensor bare = train(false);
  ASSERT_TRUE(bare.isfinite().all().item<bool>());
  EXPECT_TRUE(torch::equal(bare, train(false)));
  EXPECT_TRUE(torch::equal(bare, train(true)));
  torch::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKindMonitored,
                         testing::Combine(testing::ValuesIn(test::layer_kinds()), testing::Values(1, 2)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "On" + std::to_string(std::get<1>(info.param));
                         });

/// Counts the operators that this thread dispatches while it lives, those that are hidden from at::RecordFunction too.
class OperatorCount {
 public:
  OperatorCount() { counts_ = &own_; }
  OperatorCount(const OperatorCount&) = delete;
  OperatorCount& operator=(const OperatorCount&) = delete;
  ~OperatorCount() { counts_ = nullptr; }

  int of(const std::string& name) const {
    const auto found = own_.find(name);
    return found == own_.end() ? 0 : found->second;
  }

  static void count(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
    if (counts_) ++(*counts_)[op.operator_name().name];
    const c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::TESTING_ONLY_GenericMode);
    op.callBoxed(stack);
  }

 private:
  static inline thread_local std::map<std::string, int>* counts_ = nullptr;
  std::map<std::string, int> own_;
  c10::impl::IncludeDispatchKeyGuard guard_{c10::DispatchKey::TESTING_ONLY_GenericMode};
};
TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&OperatorCount::count>());
}

/// Operators that wait for the device, or may: what they return depends on its numbers, or lies on another device.
constexpr std::array kWaiting{"aten::_local_scalar_dense",
                              "aten::item",
                              "aten::nonzero",
                              "aten::is_nonzero",
                              "aten::equal",
                              "aten::_to_copy",
                              "aten::copy_"};

TEST(Monitor, NothingSynchronisesWithTheDeviceWhileCapturing) {
  torch::nn::Sequential net(torch::nn::Conv2d(1, 3, 3), torch::nn::ReLU(torch::nn::ReLUOptions(true)),
                            torch::nn::Flatten(), torch::nn::Linear(3 * 36, 4));
  const at::Tensor x = torch::randn({5, 1, 8, 8}), y = torch::randint(0, 4, {5}, torch::kLong);
  const auto train = [&] { F::cross_entropy(net->forward(x), y).backward(); };
  const auto waiting_in = [](const auto& work) {
    const OperatorCount count;
    work();
    EXPECT_GT(count.of("aten::linear") + count.of("aten::addmm"), 0);
    std::map<std::string, int> waiting;
    for (const char* name : kWaiting) waiting[name] = count.of(name);
    return waiting;
  };
  const auto bare = waiting_in(train);
  {
    Monitor monitor(*net, MonitorOptions().every(1), memory());
    auto step = monitor.step();
    ASSERT_TRUE(step.due());
    EXPECT_EQ(waiting_in(train), bare) << "what the step runs is what it runs without";
    step.abandon();
  }
  // The same count sees what a recorder does: here on purpose.
  RecorderOptions options;
  options.on_call = [&](const std::string&) { x.sum().item<float>(); };
  Recorder waiting(*net, options);
  waiting.start();
  EXPECT_EQ(waiting_in(train).at("aten::item"), bare.at("aten::item") + 2) << "one for each layer";
  EXPECT_THAT(waiting.take().errors, testing::IsEmpty());
}

// ---- steps ----

TEST(Monitor, ReadsTheStepsThatAreDue) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(3), sink);
  EXPECT_THAT(monitor.layers(), ElementsAre("0", "2"));
  std::vector<bool> due;
  for (int i = 0; i < 7; ++i) {
    auto step = monitor.step();
    due.push_back(step.due());
    F::cross_entropy(net->forward(torch::randn({9, 6})), torch::randint(0, 4, {9}, torch::kLong)).backward();
  }
  EXPECT_EQ(monitor.steps(), 7);
  EXPECT_THAT(due, ElementsAre(true, false, false, true, false, false, true));
  ASSERT_EQ(sink->signatures.size(), 3u * 2 * 2);
  for (std::size_t i = 0; i < sink->signatures.size(); ++i) {
    const Signature& s = sink->signatures[i];
    EXPECT_EQ(s.step, static_cast<std::int64_t>(i / 4) * 3);
    EXPECT_EQ(s.rows, 9);
    EXPECT_EQ(s.source, Source::Step);
    EXPECT_EQ(to_string(s.status), "ok");
    EXPECT_EQ(s.fisher_kind, s.side == Side::Fisher ? std::optional<FisherKind>(FisherKind::Empirical) : std::nullopt);
    EXPECT_TRUE(s.logdet_fixed_rank.has_value());
  }
}

TEST(Monitor, ALayersNameMayBeAnyBytes) {
  const std::string name = "caf\xe9";  // Latin 1
  torch::nn::Sequential net;
  net->push_back(std::string(name), torch::nn::Linear(3, 2));
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1), sink);
  {
    auto step = monitor.step();
    net->forward(torch::ones({4, 3})).sum().backward();
  }
  EXPECT_EQ(sink->signatures.at(0).layer, name);
  EXPECT_THAT(sink->description["monitor"], HasSubstr("caf\xef\xbf\xbd")) << "U+FFFD";
}

TEST(Monitor, AScheduleOfTheUsersOwn) {
  torch::nn::Sequential net = small_net();
  Monitor monitor(*net, MonitorOptions().due([](std::int64_t step) { return step == 1; }), memory());
  for (const bool expected : {false, true, false}) EXPECT_EQ(monitor.step().due(), expected);
}

TEST(Monitor, OneStepAtATime) {
  torch::nn::Sequential net = small_net();
  Monitor monitor(*net, MonitorOptions(), memory());
  auto step = monitor.step();
  EXPECT_THAT(message_of([&] { monitor.step().finish(); }), HasSubstr("step 0 is under way"));
  step.finish();
  step.finish();  // harmless
  EXPECT_EQ(monitor.steps(), 1);
}

TEST(Monitor, AStepLeftByAnExceptionIsDropped) {
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1), sink);
  try {
    auto step = monitor.step();
    net->forward(torch::randn({3, 7}));
    FAIL();
  } catch (const c10::Error&) {
  }
  EXPECT_EQ(monitor.steps(), 0);
  EXPECT_TRUE(sink->signatures.empty());
  {
    auto step = monitor.step();
    net->forward(torch::randn({3, 6})).sum().backward();
  }
  EXPECT_EQ(sink->signatures.size(), 4u);
}

TEST(Monitor, MicroBatchesOfAStepJoin) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const at::Tensor x = torch::randn({12, 6}), y = torch::randint(0, 4, {12}, torch::kLong);
  const auto read = [&](std::int64_t parts) {
    const auto sink = memory();
    Monitor monitor(*net, MonitorOptions().every(1), sink);
    {
      auto step = monitor.step();
      for (std::int64_t i = 0; i < parts; ++i) {
        const std::int64_t n = 12 / parts;
        F::cross_entropy(net->forward(x.slice(0, i * n, (i + 1) * n)), y.slice(0, i * n, (i + 1) * n)).backward();
      }
    }
    return sink->signatures;
  };
  const auto whole = read(1), parts = read(3);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(parts[i].calls, 3);
    EXPECT_EQ(parts[i].rows, 12);
    EXPECT_NEAR(*parts[i].sigma_max, *whole[i].sigma_max, 1e-5 * *whole[i].sigma_max) << to_string(whole[i].side);
    EXPECT_NEAR(*parts[i].sigma_min, *whole[i].sigma_min, 1e-5 * *whole[i].sigma_max);
  }
}

// ---- the loss reduction ----

TEST(Monitor, MeanAndSumGiveTheSameRows) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({10, 6}, torch::kDouble), y = torch::randint(0, 4, {10}, torch::kLong),
                   z = torch::randn({10, 4}, torch::kDouble);
  at::Tensor padded = y.clone();
  padded.slice(0, 7, 10).fill_(-100);
  const auto entropy = [](const at::Tensor& target, auto reduction) {
    return [=](const at::Tensor& out) {
      return F::cross_entropy(out, target, F::CrossEntropyFuncOptions().reduction(reduction));
    };
  };
  const auto squares = [&](auto reduction) {
    return [=](const at::Tensor& out) { return F::mse_loss(out, z, F::MSELossFuncOptions().reduction(reduction)); };
  };
  const auto same = [&](const Signature& a, const Signature& b) {
    ASSERT_TRUE(a.sigma_max && b.sigma_max) << to_string(a.status) << " " << to_string(b.status);
    EXPECT_NEAR(*a.sigma_max, *b.sigma_max, 1e-12 * *b.sigma_max);
    EXPECT_NEAR(*a.sigma_min_plus, *b.sigma_min_plus, 1e-12 * *b.sigma_max);
  };
  same(fisher_of(net, Reduction::Mean, x, entropy(y, torch::kMean)),
       fisher_of(net, Reduction::Sum, x, entropy(y, torch::kSum)));
  same(fisher_of(net, Reduction::Mean, x, entropy(padded, torch::kMean)),
       fisher_of(net, Reduction::Sum, x, entropy(padded, torch::kSum)));
  same(fisher_of(net, Reduction::Mean, x, squares(torch::kMean)),
       fisher_of(net, Reduction::Sum, x, squares(torch::kSum)));
  same(fisher_of(net, Reduction(10), x, entropy(y, torch::kMean)),
       fisher_of(net, Reduction::Sum, x, entropy(y, torch::kSum)));
  same(fisher_of(net, Reduction(10), x, [](const at::Tensor& out) { return out.pow(2).sum() / 10; }),
       fisher_of(net, Reduction::Sum, x, [](const at::Tensor& out) { return out.pow(2).sum(); }));
  EXPECT_EQ(fisher_of(net, Reduction::Mean, x, entropy(y, torch::kMean)).reduction, "mean:10");
}

TEST(Monitor, AReductionThatDoesNotFitTheLossGivesNoNumber) {
  torch::nn::Sequential net = small_net();
  const at::Tensor x = torch::randn({10, 6}), y = torch::randint(0, 4, {10}, torch::kLong);
  const auto mean = [&](const at::Tensor& out) { return F::cross_entropy(out, y); };
  const auto sum = [&](const at::Tensor& out) {
    return F::cross_entropy(out, y, F::CrossEntropyFuncOptions().reduction(torch::kSum));
  };
  const auto own = [&](const at::Tensor& out) { return out.pow(2).mean(); };
  const auto weighted = [&](const at::Tensor& out) {
    return F::cross_entropy(out, y, F::CrossEntropyFuncOptions().reduction(torch::kNone))
        .dot(torch::linspace(1, 2, 10));
  };
  for (const auto& [signature, status] : {std::pair{fisher_of(net, Reduction::Sum, x, mean), "reduction_mismatch"},
                                          {fisher_of(net, Reduction::Mean, x, sum), "reduction_mismatch"},
                                          {fisher_of(net, Reduction::Mean, x, own), "reduction_unknown"},
                                          {fisher_of(net, Reduction::Mean, x, weighted), "reduction_unknown"}}) {
    EXPECT_EQ(to_string(signature.status), status);
    EXPECT_FALSE(signature.sigma_max.has_value());
  }
  EXPECT_THROW(Reduction(0.0), InvalidArgument);
  EXPECT_THROW(Reduction(NAN), InvalidArgument);
  EXPECT_EQ(Reduction(Reduction::Sum).kind(), Reduction::Sum);
  EXPECT_FALSE(Reduction(Reduction::Sum).divisor().has_value());
  EXPECT_FALSE(Reduction(7.0).kind().has_value()) << "a number is no kind";
  EXPECT_EQ(Reduction(7.0).divisor(), 7.0);
}

TEST(Monitor, BatchNormInTrainingCouplesWhatIsBeforeIt) {
  torch::nn::Sequential net(torch::nn::Linear(6, 5), torch::nn::BatchNorm1d(5), torch::nn::Linear(5, 4));
  for (const bool training : {true, false}) {
    net->train(training);
    const auto sink = memory();
    Monitor monitor(*net, MonitorOptions().every(1), sink);
    {
      auto step = monitor.step();
      F::cross_entropy(net->forward(torch::randn({8, 6})), torch::randint(0, 4, {8}, torch::kLong)).backward();
    }
    ASSERT_EQ(sink->signatures.size(), 3u * 2);
    for (const Signature& s : sink->signatures) {
      EXPECT_EQ(s.status.has(Status::Coupled), training && s.side == Side::Fisher && s.layer != "2") << s.layer;
    }
  }
}

TEST(Monitor, DoesNotSeeAnLlcEstimateInItsStep) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1).all_threads(true), sink);
  const Data data(torch::randn({20, 6}), torch::randint(0, 4, {20}, torch::kLong));
  {
    auto step = monitor.step();
    F::cross_entropy(net->forward(data.inputs[0]), data.targets).backward();
    estimate_llc({*net, categorical(), data}, LlcOptions().chains(2).draws(20).burn_in(10).threads(2));
  }
  ASSERT_EQ(sink->signatures.size(), 2u * 2);
  for (const Signature& s : sink->signatures) EXPECT_EQ(s.calls, 1) << s.layer;
}

// ---- errors ----

class Failing : public log::Sink {
 public:
  void write(const Signature&) override { throw IoError("the disk is full"); }
  void write(const LlcEstimate&) override {}
  void write(const Metric&) override {}
  void describe(const std::string&, const std::string&) override {}
};

TEST(Monitor, ErrorsSurfaceFromItsOwnNextCallOrTheUsersHandler) {
  torch::nn::Sequential net = small_net();
  const auto train = [&](Monitor& monitor) {
    auto step = monitor.step();
    net->forward(torch::randn({3, 6})).sum().backward();
  };
  Monitor plain(*net, MonitorOptions().every(1), std::make_shared<Failing>());
  for (int i = 0; i < 3; ++i) EXPECT_NO_THROW(train(plain)) << "the training goes on";
  EXPECT_EQ(plain.errors(), 3 * 4);
  EXPECT_THAT(message_of([&] { plain.flush(); }), HasSubstr("the disk is full"));
  train(plain);
  EXPECT_NO_THROW(plain.flush());  // reported once
  EXPECT_EQ(plain.errors(), 4 * 4);
  Monitor finishing(*net, MonitorOptions().every(1), std::make_shared<Failing>());
  auto step = finishing.step();
  net->forward(torch::randn({3, 6})).sum().backward();
  EXPECT_THROW(step.finish(), IoError);

  std::vector<std::string> messages;
  Monitor handled(*net,
                  MonitorOptions().every(1).on_error([&](const std::exception& e) { messages.push_back(e.what()); }),
                  std::make_shared<Failing>());
  for (int i = 0; i < 2; ++i) train(handled);
  EXPECT_THAT(messages, ElementsAre("the disk is full"));
  EXPECT_EQ(handled.errors(), 2 * 4);
}

// ---- behind the training ----

/// Trains on mini-batches that are written into one tensor, which the worker must not read afterwards.
std::vector<Signature> trained(MonitorOptions options, at::Tensor* weights = nullptr) {
  torch::manual_seed(3);
  torch::nn::Sequential net = small_net();
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  const auto sink = memory();
  {
    Monitor monitor(*net, std::move(options), sink);
    at::Tensor x = torch::empty({20, 6});
    for (int i = 0; i < 30; ++i) {
      auto step = monitor.step();
      x.normal_();
      optimizer.zero_grad();
      F::mse_loss(net->forward(x), torch::ones({20, 4})).backward();
      optimizer.step();
      x.zero_();
    }
  }  // the last readings are under way here
  if (weights) *weights = torch::nn::utils::parameters_to_vector(net->parameters()).detach();
  return sink->signatures;
}

MonitorOptions every_third() {
  return MonitorOptions().every(3).signatures(
      SignatureOptions().sides({Side::Activation, Side::Input, Side::Fisher}).spectra(true).max_rows(15));
}

class Behind : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(Behind, TheLogIsTheSameToTheBitAndNothingIsLost) {
  const auto& [queue, window] = GetParam();
  const int threads = torch::get_num_threads();
  torch::set_num_threads(1);
  at::Tensor weights, behind_weights, bare_weights;
  // In place, x.zero_() would make the input side `overwritten`, were it not read at the end of the step as it then is.
  const std::vector<Signature> expected = trained(every_third().window(window), &weights);
  const std::vector<Signature> behind =
      trained(every_third().window(window).worker(Worker::Wait).queue(queue), &behind_weights);
  trained(MonitorOptions().every(std::nullopt), &bare_weights);
  torch::set_num_threads(threads);
  EXPECT_TRUE(torch::equal(weights, bare_weights));
  EXPECT_TRUE(torch::equal(behind_weights, bare_weights));
  ASSERT_EQ(expected.size(), 10u * 2 * 3);
  ASSERT_EQ(behind.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(behind[i].step, expected[i].step);
    EXPECT_EQ(to_string(series_of(behind[i])), to_string(series_of(expected[i])));
    EXPECT_EQ(to_string(behind[i].status), to_string(expected[i].status));
    EXPECT_EQ(behind[i].spectrum, expected[i].spectrum);
    EXPECT_EQ(behind[i].logdet_fixed_rank, expected[i].logdet_fixed_rank);
    EXPECT_EQ(behind[i].dead_directions, expected[i].dead_directions);
  }
}

INSTANTIATE_TEST_SUITE_P(QueueAndWindow, Behind, testing::Combine(testing::Values(1, 2, 50), testing::Values(1, 3)));

/// Lets no signature through before it is told to.
struct Gate : log::Memory {
  void write(const Signature& signature) override {
    opened.wait();
    log::Memory::write(signature);
  }
  using log::Memory::write;
  std::promise<void> open;
  std::shared_future<void> opened = open.get_future().share();
};

TEST(Monitor, SkipsAndCountsWhatTheWorkerHasNoRoomFor) {
  torch::nn::Sequential net = small_net();
  const auto sink = std::make_shared<Gate>();
  const SignatureOptions reading = SignatureOptions().layers({"2"}).sides({Side::Activation});
  Monitor monitor(*net, MonitorOptions().every(2).worker(Worker::Skip).queue(2).signatures(reading), sink);
  std::vector<bool> due;
  const auto train = [&] {
    auto step = monitor.step();
    due.push_back(step.due());
    net->forward(torch::randn({3, 6})).sum().backward();
  };
  for (int i = 0; i < 9; ++i) train();
  EXPECT_EQ(monitor.skipped(), 3);  // steps 4, 6 and 8: 0 is being read, 2 waits
  sink->open.set_value();
  monitor.flush();
  for (int i = 9; i < 11; ++i) train();
  monitor.flush();
  EXPECT_THAT(due, ElementsAre(true, false, true, false, false, false, false, false, false, false, true));
  std::vector<std::int64_t> steps, skipped;
  for (const Signature& signature : sink->signatures) steps.push_back(signature.step);
  for (const Metric& metric : sink->metrics) {
    if (metric.name == "skipped_reading") skipped.push_back(metric.step);
  }
  EXPECT_THAT(steps, ElementsAre(0, 2, 10));
  EXPECT_THAT(skipped, ElementsAre(4, 6, 8));
}

TEST(Monitor, LoggingDoesNotWaitForASlowSinkBehindTheWorker) {
  torch::nn::Sequential net = small_net();
  const auto sink = std::make_shared<Gate>();
  const SignatureOptions reading = SignatureOptions().layers({"2"}).sides({Side::Activation});
  {
    Monitor monitor(*net, MonitorOptions().every(1).worker(Worker::Wait).queue(1).signatures(reading), sink);
    {
      auto step = monitor.step();
      net->forward(torch::randn({3, 6})).sum().backward();
    }
    for (int i = 0; i < 5; ++i) monitor.log("loss", i);  // the signature of step 0 is held up
    monitor.log(LlcEstimate());
    sink->open.set_value();
  }
  EXPECT_EQ(sink->signatures.size(), 1u);
  EXPECT_EQ(sink->estimates.at(0).step, 1);
  std::vector<double> losses;
  for (const Metric& metric : sink->metrics) {
    if (metric.name == "loss") losses.push_back(metric.value);
  }
  EXPECT_THAT(losses, ElementsAre(0, 1, 2, 3, 4));
}

TEST(Monitor, ErrorsOfTheWorkerSurfaceFromTheNextCall) {
  torch::nn::Sequential net = small_net();
  const auto train = [&](Monitor& monitor) {
    auto step = monitor.step();
    net->forward(torch::randn({3, 6})).sum().backward();
  };
  Monitor monitor(*net, MonitorOptions().every(1).worker(Worker::Wait), std::make_shared<Failing>());
  train(monitor);
  EXPECT_THAT(message_of([&] { monitor.flush(); }), HasSubstr("the disk is full"));
  EXPECT_NO_THROW(monitor.flush());  // reported once
  std::atomic<int> handled = 0;
  {
    Monitor quiet(*net,
                  MonitorOptions().every(1).worker(Worker::Wait).on_error([&](const std::exception&) { ++handled; }),
                  std::make_shared<Failing>());
    for (int i = 0; i < 3; ++i) train(quiet);
  }
  EXPECT_EQ(handled, 1);
}

TEST(Monitor, AWindowJoinsTheRowsOfTheLastSteps) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  const SignatureOptions reading = SignatureOptions().layers({"0"}).sides({Side::Input}).spectra(true);
  Monitor monitor(*net, MonitorOptions().every(1).window(3).signatures(reading), sink);
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < 5; ++i) {
    auto step = monitor.step();
    inputs.push_back(torch::randn({2, 6}));
    net->forward(inputs.back()).sum().backward();
  }
  for (std::size_t i = 0; i < 5; ++i) {
    const std::size_t first = i < 2 ? 0 : i - 2;
    const at::Tensor rows = torch::cat(std::vector<at::Tensor>(inputs.begin() + first, inputs.begin() + i + 1));
    const at::Tensor sigma = torch::linalg_svdvals(rows.to(torch::kDouble));
    ASSERT_EQ(sink->signatures[i].rows, rows.size(0));
    EXPECT_LT((torch::tensor(sink->signatures[i].spectrum, torch::kDouble) - sigma).abs().max().item<double>(), 1e-13);
  }
}

// A ReLU unit that is switched off and on again: the next layer's input loses an axis, and gets it back.
TEST(Monitor, TellsWhichDimensionsDieAndComeToLife) {
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    torch::manual_seed(0);
    torch::nn::Sequential net(torch::nn::Linear(6, 5), torch::nn::ReLU(), torch::nn::Linear(5, 4));
    const auto sink = memory();
    const SignatureOptions reading = SignatureOptions().layers({"2"}).sides({Side::Input}).dead_axes(true);
    {
      Monitor monitor(*net, MonitorOptions().every(1).worker(worker).signatures(reading), sink);
      const auto bias = [&](std::int64_t unit, double value) {
        const torch::NoGradGuard no_grad;
        net[0]->as<torch::nn::Linear>()->bias[unit] = value;
      };
      for (int i = 0; i < 5; ++i) {
        if (i == 1) bias(3, -100);
        if (i == 3) bias(3, 1), bias(0, -100), bias(1, -100);
        auto step = monitor.step();
        net->forward(torch::randn({40, 6})).sum().backward();
      }
    }
    std::vector<std::optional<std::int64_t>> born, revived;
    for (const Signature& signature : sink->signatures) {
      born.push_back(signature.born);
      revived.push_back(signature.revived);
    }
    EXPECT_THAT(born, ElementsAre(std::nullopt, 1, 0, 2, 0));
    EXPECT_THAT(revived, ElementsAre(std::nullopt, 0, 0, 1, 0));
  }
}

TEST(Monitor, LoadingAStateBeginsWindowsAndTrackersAnew) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  const SignatureOptions reading = SignatureOptions().layers({"0"}).sides({Side::Input}).dead_axes(true);
  Monitor monitor(*net, MonitorOptions().every(1).window(3).signatures(reading), sink);
  const auto train = [&] {
    auto step = monitor.step();
    net->forward(torch::randn({2, 6})).sum().backward();
  };
  train(), train();
  const std::string state = monitor.state();
  monitor.load_state(state);
  train();
  EXPECT_EQ(sink->signatures[1].rows, 4);
  EXPECT_TRUE(sink->signatures[1].born.has_value());
  EXPECT_EQ(sink->signatures[2].rows, 2);
  EXPECT_FALSE(sink->signatures[2].born.has_value());
  EXPECT_EQ(sink->signatures[2].step, 2);
  auto step = monitor.step();
  EXPECT_THAT(message_of([&] { monitor.load_state(state); }), HasSubstr("step 3 is under way"));
  step.finish();
  EXPECT_THAT(
      message_of([&] { monitor.load_state(R"({"steps": 2, "fixed_ranks": [["0", "input", "step", "", -4]]})"); }),
      HasSubstr("the fixed rank of 0, input side (step) is -4"));
}

// ---- what would go unnoticed ----

TEST(Monitor, AStateIsOfItsModel) {
  torch::nn::Sequential net = small_net();
  Monitor monitor(*net, MonitorOptions(), memory());
  monitor.step().finish();
  const std::string state = monitor.state();
  torch::nn::Sequential wider(torch::nn::Linear(6, 7), torch::nn::Tanh(), torch::nn::Linear(7, 4)),
      renamed({{"in", torch::nn::AnyModule(torch::nn::Linear(6, 5))},
               {"act", torch::nn::AnyModule(torch::nn::Tanh())},
               {"out", torch::nn::AnyModule(torch::nn::Linear(5, 4))}});
  for (torch::nn::Sequential& other : {std::ref(wider), std::ref(renamed)}) {
    Monitor another(*other, MonitorOptions(), memory());
    EXPECT_THAT(message_of([&] { another.load_state(state); }),
                testing::AllOf(HasSubstr("the state's model is '4 parameters, 59 numbers, hash "),
                               HasSubstr(other.ptr() == wider.ptr() ? "4 parameters, 81 numbers" : "59 numbers")));
    EXPECT_EQ(another.steps(), 0);
  }
  // The same shapes, other values, a part of the layers, another type: the same model.
  torch::nn::Sequential same = small_net();
  same->to(torch::kDouble);
  Monitor resumed(*same, MonitorOptions().signatures(SignatureOptions().layers({"2"})), memory());
  resumed.load_state(state);
  EXPECT_EQ(resumed.steps(), 1);
  resumed.load_state(R"({"steps": 5, "fixed_ranks": []})");  // of before models were kept
  EXPECT_EQ(resumed.steps(), 5);
}

TEST(Monitor, AResumedLogIsOfItsModels) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "dds_resumed_models";
  std::filesystem::remove_all(folder);
  torch::nn::Sequential net = small_net(), critic(torch::nn::Linear(4, 1)), other(torch::nn::Linear(3, 1));
  const auto log_of = [&](torch::nn::Sequential& model, const log::SinkPtr& sink) {
    Monitor monitor(*model, MonitorOptions().every(1), sink);
    auto step = monitor.step();
    model->forward(torch::randn({5, model[0]->as<torch::nn::Linear>()->options.in_features()})).sum().backward();
    step.finish();
  };
  {  // one training of two networks
    const log::SinkPtr sink = log::directory(folder);
    log_of(net, sink);
    log_of(critic, sink);
  }
  const log::SinkPtr resumed = log::directory(folder, {.resume = true});
  log_of(net, resumed);
  log_of(critic, resumed);
  EXPECT_THAT(message_of([&] { log_of(other, resumed); }),
              testing::AllOf(HasSubstr("log::directory: the model is '2 parameters, 4 numbers, hash "),
                             HasSubstr("2 parameters, 5 numbers"), HasSubstr("choose another directory")));
  std::filesystem::remove_all(folder);
}

TEST(Monitor, SaysThatNothingWasRead) {
  torch::nn::Sequential net = small_net();
  const auto notes = [&](MonitorOptions options, const auto& use) {
    const auto sink = memory();
    {
      Monitor monitor(*net, std::move(options), sink);
      use(monitor);
    }
    return sink->description["notes"];
  };
  const auto nothing = [](Monitor&) {};
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    EXPECT_THAT(notes(MonitorOptions().worker(worker), nothing), HasSubstr("the monitor ended without a step"));
    EXPECT_THAT(
        notes(MonitorOptions().every(1).worker(worker),
              [](Monitor& monitor) {
                for (int i = 0; i < 3; ++i) static_cast<void>(monitor.step());
              }),
        testing::Eq(R"(["no layer ran within step 0: what Monitor::step() returns has to live until the update"])"))
        << "once";
  }
  EXPECT_EQ(notes(MonitorOptions().every(std::nullopt), nothing), "") << "no step would have been read";
  EXPECT_EQ(notes(MonitorOptions(),
                  [&](Monitor& monitor) {
                    monitor.read({*net, gaussian(), torch::randn({4, 6})});
                  }),
            "");
  EXPECT_EQ(notes(MonitorOptions().every(1),
                  [&](Monitor& monitor) {
                    auto step = monitor.step();
                    net->forward(torch::randn({3, 6})).sum().backward();
                  }),
            "");
}

TEST(Monitor, AStepMayOutliveIt) {
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    std::optional<Monitor> monitor(std::in_place, *net, MonitorOptions().every(1).worker(worker), sink);
    auto step = monitor->step(), abandoned = std::move(step);
    EXPECT_FALSE(step.due()) << "moved from";
    EXPECT_TRUE(abandoned.due());
    monitor.reset();
    EXPECT_THAT(sink->description["notes"], HasSubstr("the monitor ended within step 0, which is not read"));
    EXPECT_FALSE(abandoned.due());
    EXPECT_THAT(message_of([&] { abandoned.finish(); }), HasSubstr("the monitor is gone, expected one that outlives"));
    abandoned.abandon();
    std::optional<Monitor::Step> last;
    {
      Monitor brief(*net, MonitorOptions().every(1), sink);
      last.emplace(brief.step());
    }
  }
  EXPECT_TRUE(sink->signatures.empty());
  Recorder recorder(*net);
  recorder.start();  // nothing of those steps is left installed
  net->forward(torch::randn({3, 6}));
  EXPECT_EQ(recorder.take().layers.size(), 2u);
}

TEST(Monitor, NoticesThatItsModelIsGone) {
  const auto sink = memory();
  auto net = std::make_shared<torch::nn::LinearImpl>(6, 5);
  Monitor monitor(*net, MonitorOptions().every(2), sink);
  Recorder recorder(*net);
  {
    auto step = monitor.step();
    net->forward(torch::randn({3, 6})).sum().backward();
  }
  const std::size_t rows = sink->signatures.size();
  net.reset();
  monitor.step().finish();  // not due
  EXPECT_THAT(message_of([&] { monitor.step().finish(); }), HasSubstr("the model is gone, expected one that outlives"));
  EXPECT_THAT(message_of([&] { recorder.start(); }), HasSubstr("the model is gone"));
  EXPECT_THAT(monitor.state(), HasSubstr("\"steps\":2"));
  EXPECT_EQ(sink->signatures.size(), rows);
  monitor.log("loss", 1);  // the log goes on
  EXPECT_EQ(sink->metrics.back().name, "loss");
}

TEST(Monitor, ATapPatternThatMatchesNothingHasARow) {
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  const SignatureOptions reading = SignatureOptions().layers({"2", "tap:stream*", "tap:straem"});
  Monitor monitor(*net, MonitorOptions().every(1).signatures(reading), sink);
  for (int i = 0; i < 2; ++i) {
    auto step = monitor.step();
    net->forward(tap("stream.0", torch::randn({3, 6}))).sum().backward();
    step.finish();
  }
  std::vector<std::string> statuses;
  for (const Signature& s : sink->signatures) {
    if (s.layer == "tap:straem" && s.side == Side::Activation) statuses.push_back(to_string(s.status));
    EXPECT_NE(s.layer, "tap:stream*");
  }
  EXPECT_THAT(statuses, ElementsAre("not_run")) << "once";
}

// ---- rows that are no ordinary ones ----

TEST(Monitor, NoSamplesGiveAStatus) {
  torch::nn::Sequential net(torch::nn::Linear(6, 5));
  const auto sink = memory();
  const SignatureOptions reading = SignatureOptions().sides({Side::Activation, Side::Input, Side::Fisher});
  Monitor monitor(*net, MonitorOptions().every(1).reduction(Reduction::Sum).signatures(reading), sink);
  for (const std::int64_t samples : {0, 3}) {
    auto step = monitor.step();
    net->forward(torch::randn({samples, 6})).sum().backward();
    step.finish();
  }
  ASSERT_EQ(sink->signatures.size(), 6u);
  for (const Signature& s : sink->signatures) {
    EXPECT_EQ(s.status.has(Status::Empty), s.step == 0) << to_string(s.side);
    EXPECT_EQ(s.sigma_max.has_value(), s.step == 1) << to_string(s.side);
  }
}

TEST(Monitor, AWidthThatChangesWithinAStepGivesAStatus) {
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1).window(2), sink);
  for (const std::int64_t second : {3, 4, 3, 3}) {  // columns of the tap's second call
    auto step = monitor.step();
    tap("stream", torch::randn({7, 3}));
    tap("stream", torch::randn({7, second}));
    net->forward(torch::randn({5, 6})).sum().backward();
    step.finish();
  }
  std::vector<std::int64_t> rows;
  for (const Signature& s : sink->signatures) {
    if (s.layer != "stream" || s.side != Side::Activation) continue;
    EXPECT_EQ(s.status.has(Status::ShapeChanged), s.step == 1) << s.step;
    if (s.sigma_max) rows.push_back(*s.rows);
  }
  EXPECT_THAT(rows, ElementsAre(14, 28, 28));
}

// One micro-batch in half precision makes the floor that of half precision, whatever the others are.
TEST(Monitor, TheFloorIsThatOfTheCoarsestRows) {
  torch::manual_seed(0);
  torch::nn::Sequential net(torch::nn::Linear(6, 5));
  const auto floor_of = [&](std::vector<at::ScalarType> types) {
    const auto sink = memory();
    Monitor monitor(*net, MonitorOptions().every(1).signatures(SignatureOptions().sides({Side::Activation})), sink);
    {
      auto step = monitor.step();
      for (const at::ScalarType type : types) {
        net->to(type);
        net->forward(torch::ones({9, 6}, type));
      }
    }
    net->to(torch::kFloat);
    return sink->signatures.at(0);
  };
  for (const auto& types :
       {std::vector{torch::kFloat, torch::kBFloat16}, std::vector{torch::kBFloat16, torch::kFloat}}) {
    EXPECT_EQ(floor_of(types).dtype, torch::kBFloat16);
  }
  EXPECT_EQ(floor_of({torch::kFloat, torch::kFloat}).dtype, torch::kFloat);
}

TEST(Monitor, ThatWasMovedFromSaysSo) {
  torch::nn::Sequential net = small_net();
  Monitor first(*net, MonitorOptions(), memory());
  const Monitor second = std::move(first);
  EXPECT_THAT(message_of([&] { static_cast<void>(first.step()); }),  // NOLINT(bugprone-use-after-move)
              HasSubstr("Monitor::step: the monitor is null, expected one that was not moved from"));
  EXPECT_EQ(second.steps(), 0);
}

TEST(Monitor, RefusesOptionsOutOfRange) {
  torch::nn::Sequential net = small_net();
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().every(-1), memory()); }), HasSubstr("every is -1"));
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().every(0), memory()); }), HasSubstr("every is 0"));
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().queue(0), memory()); }), HasSubstr("queue is 0"));
  EXPECT_THAT(message_of([] { SignatureOptions().layers({}); }), HasSubstr("patterns is empty"));
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().window(0), memory()); }), HasSubstr("window is 0"));
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions(), nullptr); }), HasSubstr("sink is null"));
  EXPECT_THAT(
      message_of([&] { Monitor(*net, MonitorOptions().signatures(SignatureOptions().layers({"9"})), memory()); }),
      HasSubstr("0, 2"));
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().signatures(SignatureOptions().max_rows(0)), memory()); }),
              HasSubstr("max_rows is 0"));
  torch::nn::Sequential empty{torch::nn::ReLU()};
  EXPECT_THAT(message_of([&] { Monitor(*empty, MonitorOptions(), memory()); }), HasSubstr("no parameters"));
}

TEST(Monitor, ANaNLossGivesAStatusAndTrainingGoesOn) {
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1).reduction(Reduction::Sum), sink);
  {
    auto step = monitor.step();
    (net->forward(torch::randn({3, 6})).sum() * NAN).backward();
  }
  ASSERT_EQ(sink->signatures.size(), 2u * 2);
  for (const Signature& s : sink->signatures) EXPECT_EQ(s.status.has(Status::NonFinite), s.side == Side::Fisher);
}

// ---- series ----

TEST(Monitor, TheFixedRankIsThatOfTheFirstReadingAcrossAResume) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto step_with = [&](Monitor& monitor, const at::Tensor& x) {
    auto step = monitor.step();
    F::cross_entropy(net->forward(x), torch::zeros({x.size(0)}, torch::kLong)).backward();
  };
  const auto first = memory(), second = memory();
  Monitor before(*net, MonitorOptions().every(1), first);
  step_with(before, torch::randn({50, 6}));
  Monitor after(*net, MonitorOptions().every(1), second);
  after.load_state(before.state());
  EXPECT_EQ(after.steps(), 1);
  step_with(after, torch::randn({1, 6}).expand({50, 6}));  // all rows alike: rank one
  EXPECT_EQ(first->signatures[0].rank, 5);
  EXPECT_EQ(second->signatures[0].rank, 1);
  EXPECT_EQ(second->signatures[0].step, 1);
  EXPECT_EQ(second->signatures[0].fixed_rank, 5);
  EXPECT_THAT(message_of([&] { after.load_state("{}"); }), HasSubstr("load_state"));
  EXPECT_THAT(message_of([&] { after.load_state("not json"); }), HasSubstr("load_state"));
  EXPECT_EQ(after.steps(), 2);
}

/// Two units of the first layer die, weights in and out: the counts of a monitor, and those of its signatures
/// afterwards.
TEST(Monitor, CountsOnlineWhatTheLogSaysAfterwards) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto data = Data(torch::randn({100, 6}));
  const auto sink = memory(), bare = memory();
  Monitor monitor(*net, MonitorOptions().every(std::nullopt).signatures(SignatureOptions().spectra(true)), sink);
  Monitor without(*net, MonitorOptions().every(std::nullopt), bare);
  const at::Tensor in = net->parameters()[0], bias = net->parameters()[1], out = net->parameters()[2];
  for (int i = 0; i < 10; ++i) {
    {
      const torch::NoGradGuard no_grad;
      const double scale = i == 0 ? 0.3 : 0.7;
      in.narrow(0, 0, 2).mul_(scale);
      bias.narrow(0, 0, 2).mul_(scale);
      out.narrow(1, 0, 2).mul_(scale);
    }
    for (Monitor* m : {&monitor, &without}) {
      m->read({*net, gaussian(), data});
      m->step().finish();
    }
  }
  DecayCounter afterwards;
  for (const Signature& s : sink->signatures) afterwards.add(s);
  const auto online = monitor.decay_counts(), logged = afterwards.counts(), bare_counts = without.decay_counts();
  ASSERT_EQ(online.size(), 4u);
  for (std::size_t i = 0; i < online.size(); ++i) {
    EXPECT_EQ(online[i].statement(), logged[i].statement());
    EXPECT_EQ(online[i].statement(), bare_counts[i].statement());
  }
  EXPECT_EQ(online[0].series.layer, "0");
  EXPECT_EQ(online[0].count, 2) << online[0].statement();
  EXPECT_EQ(online[1].count, 2) << online[1].statement();
  ASSERT_EQ(bare->signatures.size(), 10u * 4);
  for (const Signature& s : bare->signatures) EXPECT_TRUE(s.spectrum.empty()) << "nobody asked for it";
  EXPECT_THAT(message_of([&] { Monitor(*net, MonitorOptions().decay(DecayOptions().confidence(0)), memory()); }),
              HasSubstr("confidence is 0"));
}

TEST(Monitor, KeepsTheFixedRankOfEachFisherKindApart) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const Data one(torch::randn({1, 6}), torch::randn({1, 4})), many(torch::randn({50, 6}), torch::randn({50, 4}));
  const ReadOptions empirical = ReadOptions().fisher(Fisher::Empirical);
  Monitor first(*net, MonitorOptions().every(std::nullopt), memory());
  first.read({*net, gaussian(), one}, empirical);  // one sample: rank one
  first.read({*net, gaussian(), many});            // the true Fisher: full rank
  Monitor resumed(*net, MonitorOptions().every(std::nullopt), memory());
  resumed.load_state(first.state());
  const auto fisher_sides = [](std::vector<Signature> all) {
    std::erase_if(all, [](const Signature& s) { return s.side != Side::Fisher; });
    return all;
  };
  const auto as_one = fisher_sides(resumed.read({*net, gaussian(), many}, empirical));
  const auto as_many = fisher_sides(resumed.read({*net, gaussian(), many}));
  ASSERT_EQ(as_one.size(), 2u);
  ASSERT_EQ(as_many.size(), 2u);
  for (const Signature& s : as_one) EXPECT_EQ(s.fixed_rank, 1) << s.layer;
  for (const Signature& s : as_many) EXPECT_EQ(s.fixed_rank, s.width) << s.layer;
}

TEST(Monitor, TakesTheFixedRankThatTheUserNames) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto named = [](const SeriesId& series) {
    return series.layer == "0" ? std::optional<std::int64_t>(3) : std::nullopt;
  };
  const SignatureOptions signatures = SignatureOptions().sides({Side::Activation}).fixed_rank(named);
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(1).signatures(signatures), sink);
  for (const std::int64_t samples : {2, 50}) {  // the first has fewer rows than the layers are wide
    auto step = monitor.step();
    net->forward(torch::randn({samples, 6})).sum().backward();
    step.finish();
    monitor.read({*net, gaussian(), Data(torch::randn({samples, 6}))}, ReadOptions().signatures(signatures));
  }
  ASSERT_EQ(sink->signatures.size(), 2u * 2 * 2);
  for (const Signature& s : sink->signatures) EXPECT_EQ(s.fixed_rank, s.layer == "0" ? 3 : 2) << s.layer;
}

TEST(Monitor, LogsReadsEstimatesAndMetricsAtItsStep) {
  torch::manual_seed(0);
  torch::nn::Sequential net = small_net();
  const auto sink = memory();
  Monitor monitor(*net, MonitorOptions().every(std::nullopt), sink);
  for (int i = 0; i < 3; ++i) monitor.step().finish();
  const auto signatures = monitor.read({*net, categorical(), torch::randn({20, 6})});
  torch::nn::Sequential other = small_net();
  EXPECT_THAT(message_of([&] {
                monitor.read({*other, categorical(), torch::randn({20, 6})});
              }),
              HasSubstr("the problem's model is another one, expected the one that is monitored"));
  ASSERT_EQ(sink->signatures.size(), signatures.size());
  EXPECT_EQ(sink->signatures[0].step, 3);
  EXPECT_EQ(sink->signatures[0].source, Source::Read);
  monitor.log("accuracy", 0.5);
  monitor.log(LlcEstimate());
  EXPECT_EQ(sink->metrics.back().name, "accuracy");
  EXPECT_EQ(sink->metrics.back().step, 3);
  EXPECT_EQ(sink->estimates.at(0).step, 3);
}

}  // namespace
}  // namespace dds
