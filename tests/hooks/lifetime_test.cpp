// Handles, graphs and tensors are gone when they should be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <dds/hooks.hpp>
#include <dds/log.hpp>
#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>

#include "tests/support.hpp"

namespace dds {
namespace {

using Module = torch::nn::Module;
using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl>;

WeakTensor weak(const at::Tensor& tensor) { return WeakTensor(tensor.getIntrusivePtr()); }

/// Lives as long as the graph of `tensor` does, and its hooks.
std::weak_ptr<int> life_of_graph(const at::Tensor& tensor) {
  const auto life = std::make_shared<int>(0);
  tensor.register_hook([life](const at::TensorBase&) {});
  return life;
}

std::int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

torch::nn::Sequential network() {
  return torch::nn::Sequential(torch::nn::Linear(64, 64), torch::nn::ReLU(torch::nn::ReLUOptions(true)),
                               torch::nn::Linear(64, 8));
}

/// Hooks of all stages, observing and changing, on everything there is.
std::vector<HookHandle> hooks_on(torch::nn::Sequential& net) {
  const auto three = [](const Module&, const std::string&, const Tensors&, const Tensors&) {};
  std::vector<HookHandle> handles;
  handles.push_back(register_forward_pre_hook(*net, "*", [](const Module&, const std::string&, const Tensors&) {}));
  handles.push_back(register_forward_hook(*net, "*", three));
  handles.push_back(register_full_backward_hook(*net, "*", three));
  handles.push_back(hooked(net).register_full_backward_hook(
      [](Module&, const std::string&, const Tensors& in, const Tensors&) -> std::optional<Tensors> { return in; }));
  return handles;
}

TEST(Lifetime, AHandleMayOutliveItsModule) {
  torch::nn::Linear other(64, 8);
  int calls = 0;
  auto gone = std::make_shared<torch::nn::LinearImpl>(64, 8);
  HookHandle handle =
      register_forward_hook(*gone, [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++calls; });
  gone->forward(torch::ones({2, 64}));
  EXPECT_EQ(calls, 1);
  const void* const address = gone.get();
  gone.reset();
  other->forward(torch::ones({2, 64}));
  EXPECT_EQ(calls, 1);
  // A module at the same place is another one, with hooks of its own.
  for (int i = 0; i < 100 && gone.get() != address; ++i) gone = std::make_shared<torch::nn::LinearImpl>(64, 8);
  int others = 0;
  HookHandle second = register_forward_hook(
      *gone, [&](const Module&, const std::string&, const Tensors&, const Tensors&) { ++others; });
  gone->forward(torch::ones({2, 64}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(others, 1);
  handle.remove();
  gone->forward(torch::ones({2, 64}));
  EXPECT_EQ(others, 2);
}

// 256 rows of 64 and 64 and 8 numbers a cycle: what is kept of one in a thousand would show.
TEST(Lifetime, AThousandTimesAttachedAndDetachedLeavesNothing) {
  torch::manual_seed(0);
  torch::nn::Sequential net = network();
  std::vector<WeakTensor> tensors;
  std::vector<std::weak_ptr<int>> graphs;
  const auto cycle = [&](int i) {
    const at::Tensor x = torch::randn({256, 64}, torch::requires_grad());
    std::optional<Recorder> recorder;
    std::optional<Monitor> monitor;
    std::vector<HookHandle> handles;
    if (i % 3 != 1) recorder.emplace(*net);
    if (i % 3 != 2) handles = hooks_on(net);
    if (i % 10 == 0)
      monitor.emplace(*net, MonitorOptions().every(1).reduction(Reduction::Sum), std::make_shared<log::Memory>());
    {
      std::optional<Monitor::Step> step;
      if (monitor) step.emplace(monitor->step());
      if (recorder) recorder->start();
      const at::Tensor output = hooked(net)(x);
      tensors.push_back(weak(output));
      graphs.push_back(life_of_graph(output));
      if (i % 5 != 4) output.pow(2).sum().backward();
    }
    if (!recorder) return;
    if (i % 2 == 0) {  // else it is dropped as it is
      const Captured captured = recorder->take();
      for (const CapturedLayer& layer : captured.layers) {
        for (const CapturedCall& call : layer.calls) {
          tensors.push_back(weak(call.output));
          if (call.gradient().defined()) tensors.push_back(weak(call.gradient()));
        }
      }
    }
  };
  // A weak pointer keeps a tensor's own structure: it is let go of as soon as it has been looked at.
  const auto cycles = [&](int count) {
    for (int i = 0; i < count; ++i) {
      cycle(i);
      net->zero_grad();
      for (const WeakTensor& tensor : tensors) ASSERT_TRUE(tensor.expired()) << "cycle " << i;
      for (const std::weak_ptr<int>& graph : graphs) ASSERT_TRUE(graph.expired()) << "cycle " << i;
      tensors.clear();
      graphs.clear();
    }
  };
  cycles(200);
  const std::int64_t before = resident_bytes();
  cycles(1000);
  const std::int64_t after = resident_bytes();
#ifndef __SANITIZE_ADDRESS__  // which keeps what is freed
  EXPECT_LT(after - before, 8 << 20);
#endif
}

TEST(Lifetime, NoGraphIsHeldAfterAStepNotByWhatWasCapturedEither) {
  torch::nn::Sequential net = network();
  const std::vector<HookHandle> handles = hooks_on(net);
  Recorder recorder(*net);
  recorder.start();
  std::weak_ptr<int> graph;
  {
    const at::Tensor output = hooked(net)(torch::randn({4, 64}));
    graph = life_of_graph(output);
    output.sum().backward();
  }
  recorder.stop();
  EXPECT_TRUE(graph.expired());
  const Captured captured = recorder.take();
  ASSERT_EQ(captured.layers.size(), 2u);
  EXPECT_TRUE(captured.layers[0].calls[0].gradient().defined());
}

TEST(Lifetime, AGraphThatTheUserKeepsHoldsNothingOfOurs) {
  torch::nn::Sequential net = network();
  at::Tensor output;
  WeakTensor gradient = weak(output);
  const auto inside_hook = std::make_shared<int>(0);
  {
    Recorder recorder(*net);
    const auto handle = register_full_backward_hook(
        *net, "*", [inside_hook](const Module&, const std::string&, const Tensors&, const Tensors&) {});
    recorder.start();
    output = net->forward(torch::randn({4, 64}));
    output.sum().backward({}, /*keep_graph=*/true);
    const Captured captured = recorder.take();
    gradient = weak(captured.layers[0].calls[0].gradient());
    EXPECT_FALSE(gradient.expired());
  }
  EXPECT_TRUE(gradient.expired());
  EXPECT_EQ(inside_hook.use_count(), 1);
  output.sum().backward();  // hooks of what is gone
}

// A thread keeps a list of the recorders that hear it; one that is gone must not live on in it.
TEST(Lifetime, AThreadThatGoesOnHoldsNothingOfARecorderThatIsGone) {
  torch::nn::Sequential net = network();
  std::mutex mutex;
  std::condition_variable changed;
  int stage = 0;
  const auto reach = [&](int next) {
    const std::lock_guard lock(mutex);
    stage = next;
    changed.notify_all();
  };
  const auto wait_for = [&](int wanted) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return stage >= wanted; });
  };
  const auto alive = std::make_shared<int>(0);
  std::thread worker;
  {
    RecorderOptions options;
    options.all_threads = true;
    options.on_call = [alive](const std::string&) {};
    Recorder recorder(*net, options);
    recorder.start();
    worker = std::thread([&] {
      net->forward(torch::randn({4, 64}));
      reach(1);
      wait_for(2);
    });
    wait_for(1);
    EXPECT_GT(alive.use_count(), 1);
  }
  EXPECT_EQ(alive.use_count(), 1);
  reach(2);
  worker.join();
}

}  // namespace
}  // namespace dds
