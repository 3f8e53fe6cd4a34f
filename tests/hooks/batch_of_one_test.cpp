// A constant of a weight's shape may be a mask of it, or the data of a batch of one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <dds/recorder.hpp>
#include <functional>

#include "tests/support.hpp"

namespace dds {
namespace {

/// A model of raw parameters: a table that goes with the input, and two weights.
struct RawNet : torch::nn::Module {
  at::Tensor table = register_parameter("table", torch::randn({1, 3, 4}, torch::kDouble));
  at::Tensor first = register_parameter("first", torch::randn({4, 5}, torch::kDouble));
  at::Tensor second = register_parameter("second", torch::randn({5, 2}, torch::kDouble));
};

struct Join {
  const char* name;
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& table)> of;
};
void PrintTo(const Join& join, std::ostream* os) { *os << join.name; }

class BatchOfOne : public testing::TestWithParam<Join> {};

TEST_P(BatchOfOne, IsReadAsAnyOther) {
  torch::manual_seed(2);
  for (const std::int64_t samples : {1, 2}) {
    RawNet net;
    const at::Tensor x = torch::randn({samples, 3, 4}, torch::kDouble);
    Recorder recorder(net);
    recorder.start();
    const at::Tensor h = torch::tanh(GetParam().of(x, net.table));
    torch::matmul(torch::tanh(torch::matmul(h, net.first)), net.second).pow(2).sum().backward();
    const Captured captured = recorder.take();
    for (const auto& [name, weight] : {std::pair{"first", net.first}, {"second", net.second}}) {
      const auto layer = std::find_if(captured.layers.begin(), captured.layers.end(),
                                      [name = name](const CapturedLayer& each) { return each.layer == name; });
      ASSERT_NE(layer, captured.layers.end()) << name;
      ASSERT_EQ(layer->calls.size(), 1u) << name << ", " << samples << ": " << layer->detail;
      const CapturedCall& call = layer->calls[0];
      const at::Tensor a = as_rows(call.inputs[0], call.input_features);
      EXPECT_EQ(a.size(0), 3 * samples) << name;
      EXPECT_LE(test::relative_difference(a.t().matmul(as_rows(call.gradient(), call.output_features)), weight.grad()),
                1e-13)
          << name;
    }
    const auto table = std::find_if(captured.layers.begin(), captured.layers.end(),
                                    [](const CapturedLayer& each) { return each.layer == "table"; });
    ASSERT_NE(table, captured.layers.end());
    EXPECT_EQ(to_string(table->status), "not_observable");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Joins, BatchOfOne,
    testing::Values(
        Join{"Sum", [](const at::Tensor& x, const at::Tensor& table) { return x + table; }},
        Join{"Difference", [](const at::Tensor& x, const at::Tensor& table) { return table - x; }},
        Join{"Choice", [](const at::Tensor& x, const at::Tensor& table) { return torch::where(x > 0, x, table); }},
        Join{"Interpolation", [](const at::Tensor& x, const at::Tensor& table) { return torch::lerp(table, x, 0.3); }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(BatchOfOneTest, MasksAndRoundedWeightsAreStillWeights) {
  struct Net : torch::nn::Module {
    at::Tensor masked = register_parameter("masked", torch::randn({4, 5}, torch::kDouble));
    at::Tensor rounded = register_parameter("rounded", torch::randn({5, 3}, torch::kDouble));
    at::Tensor a = register_parameter("a", torch::randn({3, 2}, torch::kDouble));
    at::Tensor b = register_parameter("b", torch::randn({2, 3}, torch::kDouble));
  } net;
  torch::manual_seed(3);
  const at::Tensor x = torch::randn({4, 4}, torch::kDouble);
  const at::Tensor mask = torch::randint(0, 2, {4, 5}, torch::kDouble);
  Recorder recorder(net);
  recorder.start();
  at::Tensor h = torch::tanh(torch::matmul(x, net.masked * mask));
  h = torch::matmul(h,
                    net.rounded + (net.rounded.round() - net.rounded).detach());  // the gradient goes straight through
  h = torch::matmul(h, torch::matmul(net.a * torch::ones({3, 2}, torch::kDouble), net.b));  // of rank 2
  h.pow(2).sum().backward();
  const Captured captured = recorder.take();
  std::vector<std::string> ran;
  for (const CapturedLayer& layer : captured.layers) {
    if (!layer.calls.empty()) ran.push_back(layer.layer);
  }
  EXPECT_THAT(ran, testing::ElementsAre("masked", "rounded", "a"));
  EXPECT_TRUE(torch::equal(captured.layers[0].calls[0].inputs[0], x));
}

}  // namespace
}  // namespace dds
