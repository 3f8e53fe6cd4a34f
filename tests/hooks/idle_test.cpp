// A step that is not due installs nothing, and records nothing.
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <dds/log.hpp>
#include <dds/monitor.hpp>
#include <set>
#include <vector>

namespace dds {
namespace {

namespace nn = torch::nn;

/// Hooks on the nodes of the graph behind a tensor.
std::size_t hooks_behind(const at::Tensor& tensor) {
  std::vector<torch::autograd::Node*> open{tensor.grad_fn().get()};
  std::set<torch::autograd::Node*> seen;
  std::size_t count = 0;
  while (!open.empty()) {
    torch::autograd::Node* node = open.back();
    open.pop_back();
    if (!node || !seen.insert(node).second) continue;
    count += node->pre_hooks().size() + node->post_hooks().size();
#if TORCH_VERSION_MAJOR >= 2
    count += node->tensor_pre_hooks().size();
#endif
    for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
  }
  return count;
}

TEST(IdleSteps, InstallAndRecordNothing) {
  torch::manual_seed(0);
  nn::Sequential model(nn::Linear(5, 4), nn::Tanh(), nn::LayerNorm(nn::LayerNormOptions({4})), nn::Linear(4, 3));
  const at::Tensor x = torch::randn({8, 5}), y = torch::randint(3, {8}, torch::kLong);
  const auto sink = std::make_shared<log::Memory>();
  Monitor monitor(*model, MonitorOptions().every(3), sink);
  int due = 0;
  for (int i = 0; i < 7; ++i) {
    auto step = monitor.step();
    const at::Tensor loss = nn::functional::cross_entropy(model->forward(x), y);
    const bool heard = at::hasCallbacks();
    const std::size_t hooks = hooks_behind(loss), rows = sink->signatures.size();
    loss.backward();
    step.finish();
    const bool is_due = i % 3 == 0;
    due += is_due;
    EXPECT_EQ(heard, is_due) << "operators are listened to in step " << i;
    EXPECT_EQ(hooks > 0, is_due) << hooks << " hooks in step " << i;
    EXPECT_EQ(sink->signatures.size() > rows, is_due) << i;
    EXPECT_FALSE(at::hasCallbacks()) << "left after step " << i;
  }
  EXPECT_EQ(due, 3);
}

}  // namespace
}  // namespace dds
