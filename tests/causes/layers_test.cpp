// Causes in layers of other kinds, inside training steps, over ranks; and texts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/monitor.hpp>

#include "src/causes/search.hpp"
#include "tests/causes/networks.hpp"
#include "tests/ranks/thread_ranks.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::causes_of;
using test::Chain;
using test::reading_of;
namespace nn = torch::nn;

std::vector<Signature> causes_read(nn::Sequential net, const at::Tensor& x,
                                   SignatureOptions options = SignatureOptions()) {
  const Forward forward = [net](nn::Module&, const std::vector<at::Tensor>& inputs) mutable {
    return net->forward(inputs.at(0));
  };
  return dds::read({*net, categorical(), Data(x), forward}, ReadOptions().signatures(std::move(options)));
}

/// A channel that is off is dead where the ReLU takes it, and in the convolution before the batch norm too.
TEST(CauseLayers, AChannelThatIsOff) {
  torch::manual_seed(test::seed(0));
  nn::Sequential net({{"conv", nn::Conv2d(nn::Conv2dOptions(2, 6, 3))},
                      {"bn", nn::BatchNorm2d(6)},
                      {"relu", nn::ReLU()},
                      {"pool", nn::AdaptiveAvgPool2d(1)},
                      {"flat", nn::Flatten()},
                      {"fc", nn::Linear(6, 9)}});
  const at::Tensor x = torch::randn({100, 2, 7, 7});
  EXPECT_EQ(causes_of(causes_read(net, x)), "");
  net->named_parameters()["bn.bias"].data()[4] = -1000;
  EXPECT_EQ(causes_of(causes_read(net, x)),
            "conv fisher: downstream:1[4](bn)\nbn fisher: relu_off:1[4]\n"
            "fc activation: unexplained:1\n");  // a pooling and a view are in between
}

class Unknown : public nn::Module {
 public:
  nn::Linear first{register_module("first", nn::Linear(8, 12))}, second{register_module("second", nn::Linear(12, 12))};
  at::Tensor forward(const at::Tensor& x) { return second(first(x).clamp_min(0)); }
};

/// What takes the output is no function that is looked for: the unit is named, and no cause.
TEST(CauseLayers, AUnitBehindAnotherFunctionIsUnexplained) {
  torch::manual_seed(test::seed(0));
  Unknown net;
  net.first->bias.data()[3] = -1000;
  const auto signatures = dds::read({net, categorical(), Data(torch::randn({100, 8}))});
  EXPECT_EQ(to_string(reading_of(signatures, "first", Side::Fisher).causes), "unexplained:1[3]");
}

nn::Sequential norm_network(bool trained) {
  torch::manual_seed(test::seed(1));
  nn::Sequential net(
      {{"in", nn::Linear(10, 16)}, {"norm", nn::LayerNorm(nn::LayerNormOptions({16}))}, {"out", nn::Linear(16, 7)}});
  if (trained) {
    net->named_parameters()["norm.weight"].data().uniform_(0.5, 2);
    net->named_parameters()["norm.bias"].data().uniform_(-1, 1);
  }
  return net;
}

/// Outputs lie across 1/gamma, as long as no bias fills it; less their mean they do in any case. Gradients at the input
/// sum to zero.
TEST(CauseLayers, ALayerNorm) {
  const at::Tensor x = torch::randn({200, 10});
  for (const bool trained : {false, true}) {
    for (const bool centred : {false, true}) {
      nn::Sequential net = norm_network(trained);
      const auto signatures =
          causes_read(net, x, SignatureOptions().centred(centred).sides({Side::Activation, Side::Input, Side::Fisher}));
      const Signature& norm = reading_of(signatures, "norm", Side::Activation);
      EXPECT_EQ(norm.centred, centred);
      ASSERT_EQ(norm.rank, trained && !centred ? 12 : 11) << trained << centred;  // 10 inputs, and a bias or two
      const Signature& in = reading_of(signatures, "in", Side::Fisher);
      EXPECT_THAT(to_string(in.causes), testing::StartsWith("layer_norm:1")) << trained << centred;
      if (trained && !centred) {
        EXPECT_THAT(to_string(norm.causes), testing::Not(testing::HasSubstr("layer_norm")));
        continue;
      }
      ASSERT_FALSE(norm.causes.empty());
      const Cause& cause = norm.causes[0];
      EXPECT_EQ(cause.kind, CauseKind::LayerNorm);
      EXPECT_EQ(cause.directions, 1);
      EXPECT_LT(*cause.angle, 1e-10);
      const at::Tensor gamma = net->named_parameters()["norm.weight"].detach().to(torch::kDouble);
      const at::Tensor inverse = gamma.reciprocal() / gamma.reciprocal().norm();
      EXPECT_NEAR(std::abs(cause.axes[0].dot(inverse).item<double>()), 1, 1e-12);
    }
  }
}

TEST(CauseLayers, AnRmsNormHasNone) {
  torch::manual_seed(test::seed(0));
  class Root : public nn::Module {
   public:
    nn::Linear in{register_module("in", nn::Linear(24, 16))}, out{register_module("out", nn::Linear(16, 7))};
    at::Tensor forward(const at::Tensor& x) {
      const at::Tensor h = in(x);
      return out(h * (h.square().mean(-1, true) + 1e-5).rsqrt());
    }
  } net;
  const auto signatures = dds::read({net, categorical(), Data(torch::randn({200, 24}))});
  EXPECT_EQ(to_string(reading_of(signatures, "in", Side::Activation).causes), "");
  EXPECT_THAT(to_string(reading_of(signatures, "in", Side::Fisher).causes), testing::Not(testing::HasSubstr("norm")));
  EXPECT_EQ(causes_of(signatures), "");
}

/// Inside a training step, in fp32, and after an optimiser that writes to the weights.
TEST(CauseLayers, InsideAStep) {
  torch::manual_seed(test::seed(3));
  Chain net({12, 24, 24, 5}, test::relu_of);
  for (const std::int64_t unit : {3, 8, 9}) net.bias(0)[unit] = -1000;
  for (const std::int64_t unit : {2, 7}) net.weight(1).t()[unit].zero_();
  const auto sink = std::make_shared<log::Memory>();
  {
    Monitor monitor(net, MonitorOptions().every(1), sink);
    torch::optim::SGD optimizer(net.parameters(), 0.1);
    const at::Tensor x = torch::randn({300, 12}), y = torch::randint(5, {300});
    auto step = monitor.step();
    optimizer.zero_grad();
    torch::cross_entropy_loss(net.forward(x), y).backward();
    optimizer.step();
    step.finish();
  }
  EXPECT_EQ(to_string(reading_of(sink->signatures, "fc0", Side::Fisher).causes),
            "relu_off:3[3,8-9] outgoing_zero:2[2,7]");
  EXPECT_EQ(to_string(reading_of(sink->signatures, "fc1", Side::Activation).causes),
            "outgoing_zero:1[2,7](fc0) upstream:3(fc0)");
  EXPECT_EQ(to_string(reading_of(sink->signatures, "fc2", Side::Fisher).causes), "softmax:1");
}

TEST(CauseLayers, OverRanksAndBatchesAsFromOne) {
  torch::manual_seed(test::seed(3));
  Chain net({12, 24, 24, 5}, test::relu_of);
  for (const std::int64_t unit : {3, 8, 9}) net.bias(0)[unit] = -1000;
  net.weight(1)[7].zero_();
  net.weight(1)[8].zero_();
  const at::Tensor x = torch::randn({300, 12});
  const auto read_part = [&](const at::Tensor& part, std::int64_t batch, RanksPtr ranks) {
    Chain copy({12, 24, 24, 5}, test::relu_of);
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < copy.parameters().size(); ++i) copy.parameters()[i].copy_(net.parameters()[i]);
    return dds::read({copy, categorical(), Data(part)},
                     ReadOptions().batch_size(batch).signatures(SignatureOptions().ranks(std::move(ranks))));
  };
  const std::string expected = causes_of(read_part(x, 512, nullptr));
  EXPECT_THAT(expected, testing::HasSubstr("upstream:"));
  EXPECT_THAT(expected, testing::HasSubstr("incoming_zero:"));
  EXPECT_EQ(causes_of(read_part(x, 7, nullptr)), expected);
  std::vector<Signature> joined;
  const auto errors = test::on_ranks(3, [&](const RanksPtr& ranks) {
    const std::int64_t rank = ranks->rank();
    auto signatures = read_part(x.narrow(0, rank * 100, 100), 64, ranks);
    if (rank == 0) joined = std::move(signatures);
  });
  EXPECT_EQ(causes_of(joined), expected);
}

TEST(CauseLayers, AreLeftOutOnRequest) {
  Chain net({12, 24, 5}, test::relu_of);
  for (const Signature& s : dds::read({net, categorical(), Data(torch::randn({50, 12}))},
                                      ReadOptions().signatures(SignatureOptions().causes(false)))) {
    EXPECT_TRUE(s.causes.empty());
    EXPECT_FALSE(s.dead_by_architecture || s.dead_explained || s.dead_unexplained);
  }
}

TEST(CauseTexts, AreReadBack) {
  std::vector<Cause> causes(3);
  causes[0] = {.kind = CauseKind::LayerNorm, .directions = 1};
  causes[1] = {.kind = CauseKind::ReluOff, .directions = 5, .units = {0, 3, 4, 5, 9}};
  causes[2] = {.kind = CauseKind::OutgoingZero, .directions = 2, .units = {7, 8}, .layer = "a (0) %20"};
  EXPECT_EQ(to_string(causes), "layer_norm:1 relu_off:5[0,3-5,9] outgoing_zero:2[7-8](a%20(0)%20%2520)");
  const std::vector<Cause> back = causes_from_string(to_string(causes));
  ASSERT_EQ(back.size(), 3u);
  EXPECT_EQ(back[1].units, causes[1].units);
  EXPECT_EQ(back[2].layer, causes[2].layer);
  EXPECT_TRUE(causes_from_string("").empty());
  for (const char* text :
       {"relu", "relu_off:", "relu_off:x", "relu_off:-1", "relu_off:1[", "relu_off:1[3", "zero:1[5-3]", "zero:1[3,3]",
        "zero:1[0-99999999999]", "upstream:1(fc", "zero:1 ", "zero:1zero:2", " "}) {
    if (std::string(text) == "zero:1 ") continue;  // a space at the end is none too many
    EXPECT_THROW(causes_from_string(text), InvalidArgument) << text;
  }
}

/// The slope that is told is not below any slope in the range.
TEST(CauseFunctions, SlopesAreBounded) {
  const std::vector<std::pair<std::string, std::function<at::Tensor(const at::Tensor&)>>> functions = {
      {"tanh", [](const at::Tensor& x) { return torch::tanh(x); }},
      {"sigmoid", [](const at::Tensor& x) { return torch::sigmoid(x); }},
      {"relu", [](const at::Tensor& x) { return torch::relu(x); }},
      {"relu6", [](const at::Tensor& x) { return torch::relu6(x); }},
      {"silu", [](const at::Tensor& x) { return torch::silu(x); }},
      {"gelu", [](const at::Tensor& x) { return torch::gelu(x); }},
      {"elu", [](const at::Tensor& x) { return torch::elu(x); }}};
  for (const auto& [name, function] : functions) {
    for (const auto& [low, high] : std::vector<std::pair<double, double>>{
             {-40, -30}, {-9, -3}, {-1, -0.5}, {-2, 2}, {0.5, 1}, {3, 9}, {20, 40}}) {
      const at::Tensor x = torch::linspace(low, high, 200, torch::kDouble).set_requires_grad(true);
      const at::Tensor slope = torch::autograd::grad({function(x).sum()}, {x})[0].abs().max();
      const bool unbounded = low < 0 && high > 0 && (name == "silu" || name == "gelu");  // 1.1 at most, told as 1
      EXPECT_GE(largest_slope(name, low, high) * (unbounded || low > 0 ? 1.13 : 1 + 1e-12), slope.item<double>())
          << name << " " << low << " " << high;
    }
  }
}

}  // namespace
}  // namespace dds
