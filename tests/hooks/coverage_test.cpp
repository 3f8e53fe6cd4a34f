// Every module of torch::nn that has parameters, in every way that changes what runs: per-sample gradients as
// one-by-one backward gives them, or the reason why not. coverage.md is the table of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/per_sample.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/paths.hpp"

namespace dds {
namespace {

using test::Net;
using test::one_by_one;

struct Covered {
  std::string module;                   ///< "Linear"
  std::string use;                      ///< as the table says it; empty: the only one
  std::function<Net::Run(Net&)> build;  ///< registers the module as "layer"; (n, ...) -> (n, ...)
  std::function<at::Tensor()> input;
  std::set<std::string> missing = {};  ///< parameters that take one backward pass for each sample
  std::string reason = "";             ///< ... because
};

std::string name_of(const Covered& covered) {
  std::string name = covered.module + covered.use;
  std::erase_if(name, [](unsigned char c) { return !std::isalnum(c); });
  return name;
}
void PrintTo(const Covered& covered, std::ostream* os) { *os << name_of(covered); }

/// A module that takes samples first.
template <class Make>
std::function<Net::Run(Net&)> plain(Make make) {
  return [make](Net& net) -> Net::Run {
    decltype(make()) layer = net.register_module("layer", make());
    return [layer](Net&, const at::Tensor& x) mutable { return layer->forward(x); };
  };
}

/// A sequence layer that gives all outputs and its final state.
template <class Make>
std::function<Net::Run(Net&)> sequence(Make make, std::int64_t batch) {
  return [make, batch](Net& net) -> Net::Run {
    decltype(make()) layer = net.register_module("layer", make());
    return [layer, batch](Net&, const at::Tensor& x) mutable {
      return std::get<0>(layer->forward(x.movedim(0, batch))).movedim(batch, 0);
    };
  };
}

/// Something of torch::nn's transformers, which take (sequence, batch, feature).
template <class Make, class Run>
std::function<Net::Run(Net&)> sequence_first(Make make, Run run) {
  return [make, run](Net& net) -> Net::Run {
    decltype(make()) layer = net.register_module("layer", make());
    return [layer, run](Net&, const at::Tensor& x) mutable { return run(layer, x.transpose(0, 1)).transpose(0, 1); };
  };
}

std::vector<Covered> covered() {
  namespace nn = torch::nn;
  const auto randn = [](std::vector<std::int64_t> shape) { return [shape] { return torch::randn(shape); }; };
  const auto tokens = [] { return torch::randint(0, 7, {5, 4}, torch::kLong); };
  const auto bag = [&](nn::EmbeddingBagOptions options) { return plain([=] { return nn::EmbeddingBag(options); }); };
  const auto attend = [](auto&& run) {
    return [run](nn::MultiheadAttention& layer, const at::Tensor& x) { return std::get<0>(run(layer, x)); };
  };
  const auto attention = [] { return nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2)); };
  const std::set<std::string> key_and_value{"layer.bias_k", "layer.bias_v"};
  const std::string concatenated = "appended to the keys and values: no product has them as an operand";
  return {
      {"Linear", "", plain([] { return nn::Linear(4, 3); }), randn({6, 4})},
      {"Linear", "over positions", plain([] { return nn::Linear(4, 3); }), randn({3, 5, 4})},
      {"Bilinear", "",
       [](Net& net) -> Net::Run {
         nn::Bilinear layer = net.register_module("layer", nn::Bilinear(4, 4, 3));
         return [layer](Net&, const at::Tensor& x) mutable { return layer(x, x.cos()); };
       },
       randn({6, 5, 4})},
      {"Conv1d", "", plain([] { return nn::Conv1d(nn::Conv1dOptions(4, 6, 3).stride(2).padding(1).groups(2)); }),
       randn({4, 4, 9})},
      {"Conv2d", "", plain([] {
         return nn::Conv2d(nn::Conv2dOptions(2, 3, {3, 2}).stride({2, 1}).padding({1, 0}).dilation({1, 2}));
       }),
       randn({4, 2, 7, 8})},
      {"Conv2d", "padding as long as the kernel", plain([] {
         return nn::Conv2d(nn::Conv2dOptions(2, 3, {4, 3}).padding(torch::kSame));
       }),
       randn({3, 2, 5, 5})},
      {"Conv2d", "padding by reflection",
       plain([] { return nn::Conv2d(nn::Conv2dOptions(2, 3, 3).padding(1).padding_mode(torch::kReflect)); }),
       randn({3, 2, 5, 5})},
      {"Conv2d", "depthwise", plain([] { return nn::Conv2d(nn::Conv2dOptions(3, 6, 3).groups(3)); }),
       randn({3, 3, 5, 5})},
      {"Conv3d", "", plain([] { return nn::Conv3d(nn::Conv3dOptions(2, 3, 2).padding(1).stride(2)); }),
       randn({3, 2, 4, 4, 4})},
      {"ConvTranspose1d", "", plain([] {
         return nn::ConvTranspose1d(
             nn::ConvTranspose1dOptions(4, 6, 3).stride(2).padding(1).output_padding(1).groups(2));
       }),
       randn({4, 4, 5})},
      {"ConvTranspose2d", "", plain([] {
         return nn::ConvTranspose2d(nn::ConvTranspose2dOptions(2, 3, {3, 2}).stride({2, 1}).dilation({1, 2}));
       }),
       randn({3, 2, 4, 4})},
      {"ConvTranspose3d", "", plain([] { return nn::ConvTranspose3d(nn::ConvTranspose3dOptions(2, 3, 2).stride(2)); }),
       randn({3, 2, 3, 3, 3})},
      {"Embedding", "", plain([] { return nn::Embedding(nn::EmbeddingOptions(7, 3).padding_idx(2)); }), tokens},
      {"EmbeddingBag", "sum", bag(nn::EmbeddingBagOptions(7, 3).mode(torch::kSum)), tokens},
      {"EmbeddingBag", "mean", bag(nn::EmbeddingBagOptions(7, 3).mode(torch::kMean)), tokens},
      {"EmbeddingBag", "max", bag(nn::EmbeddingBagOptions(7, 3).mode(torch::kMax)), tokens},
      {"BatchNorm1d", "in eval mode", plain([] { return nn::BatchNorm1d(4); }), randn({6, 4})},
      {"BatchNorm2d", "in eval mode", plain([] { return nn::BatchNorm2d(3); }), randn({4, 3, 5, 5})},
      {"BatchNorm3d", "in eval mode", plain([] { return nn::BatchNorm3d(3); }), randn({4, 3, 2, 3, 3})},
      {"InstanceNorm1d", "", plain([] { return nn::InstanceNorm1d(nn::InstanceNorm1dOptions(3).affine(true)); }),
       randn({4, 3, 6})},
      {"InstanceNorm2d", "", plain([] { return nn::InstanceNorm2d(nn::InstanceNorm2dOptions(3).affine(true)); }),
       randn({4, 3, 4, 4})},
      {"InstanceNorm3d", "with running statistics",
       plain([] { return nn::InstanceNorm3d(nn::InstanceNorm3dOptions(3).affine(true).track_running_stats(true)); }),
       randn({4, 3, 2, 3, 3})},
      {"LayerNorm", "", plain([] {
         return nn::LayerNorm(nn::LayerNormOptions({3, 4}));
       }),
       randn({6, 2, 3, 4})},
      {"GroupNorm", "", plain([] { return nn::GroupNorm(nn::GroupNormOptions(2, 4)); }), randn({3, 4, 5})},
      {"PReLU", "", plain([] { return nn::PReLU(nn::PReLUOptions().num_parameters(4)); }), randn({3, 4, 5})},
      {"RNN", "", sequence([] { return nn::RNN(nn::RNNOptions(4, 3).num_layers(2).bidirectional(true)); }, 1),
       randn({3, 5, 4})},
      {"LSTM", "",
       sequence([] { return nn::LSTM(nn::LSTMOptions(4, 3).num_layers(2).bidirectional(true).batch_first(true)); }, 0),
       randn({3, 5, 4})},
      {"LSTM", "with projections", sequence([] { return nn::LSTM(nn::LSTMOptions(4, 3).proj_size(2)); }, 1),
       randn({3, 5, 4})},
      {"GRU", "", sequence([] { return nn::GRU(nn::GRUOptions(4, 3).num_layers(2).bidirectional(true)); }, 1),
       randn({3, 5, 4})},
      {"RNNCell", "", plain([] { return nn::RNNCell(4, 3); }), randn({6, 4})},
      {"LSTMCell", "",
       [](Net& net) -> Net::Run {
         nn::LSTMCell layer = net.register_module("layer", nn::LSTMCell(4, 3));
         return [layer](Net&, const at::Tensor& x) mutable {
           const auto [h, c] = layer->forward(x);
           return torch::cat({h, c}, 1);
         };
       },
       randn({6, 4})},
      {"GRUCell", "", plain([] { return nn::GRUCell(4, 3); }), randn({6, 4})},
      {"MultiheadAttention", "of a sequence to itself",
       sequence_first(attention, attend([](auto& layer, const at::Tensor& x) { return layer->forward(x, x, x); })),
       randn({3, 5, 8})},
      {"MultiheadAttention", "of one sequence to another",
       sequence_first(attention,
                      attend([](auto& layer, const at::Tensor& x) { return layer->forward(x, x.cos(), x.sin()); })),
       randn({3, 5, 8})},
      {"MultiheadAttention", "keys and values of other widths",
       sequence_first([] { return nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2).kdim(6).vdim(6)); },
                      attend([](auto& layer, const at::Tensor& x) {
                        return layer->forward(x, x.narrow(2, 0, 6).cos(), x.narrow(2, 2, 6).sin());
                      })),
       randn({3, 5, 8})},
      {"MultiheadAttention", "with a bias for keys and values",
       sequence_first([] { return nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2).add_bias_kv(true)); },
                      attend([](auto& layer, const at::Tensor& x) { return layer->forward(x, x, x); })),
       randn({3, 5, 8}), key_and_value, concatenated},
      {"TransformerEncoderLayer", "",
       sequence_first(
           [] { return nn::TransformerEncoderLayer(nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(12)); },
           [](auto& layer, const at::Tensor& x) { return layer->forward(x); }),
       randn({3, 5, 8})},
      {"TransformerDecoderLayer", "",
       sequence_first(
           [] { return nn::TransformerDecoderLayer(nn::TransformerDecoderLayerOptions(8, 2).dim_feedforward(12)); },
           [](auto& layer, const at::Tensor& x) { return layer->forward(x, x.cos()); }),
       randn({3, 5, 8})},
      {"TransformerEncoder", "",
       sequence_first(
           [] {
             return nn::TransformerEncoder(nn::TransformerEncoderOptions(
                 nn::TransformerEncoderLayer(nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(12)), 2));
           },
           [](auto& layer, const at::Tensor& x) { return layer->forward(x); }),
       randn({3, 5, 8})},
      {"TransformerDecoder", "",
       sequence_first(
           [] {
             return nn::TransformerDecoder(nn::TransformerDecoderOptions(
                 nn::TransformerDecoderLayer(nn::TransformerDecoderLayerOptions(8, 2).dim_feedforward(12)), 2));
           },
           [](auto& layer, const at::Tensor& x) { return layer->forward(x, x.cos()); }),
       randn({3, 5, 8})},
      {"Transformer", "",
       sequence_first([] { return nn::Transformer(nn::TransformerOptions(8, 2, 1, 1).dim_feedforward(12)); },
                      [](auto& layer, const at::Tensor& x) { return layer->forward(x, x.narrow(0, 0, 3).cos()); }),
       randn({3, 5, 8})},
      {"AdaptiveLogSoftmaxWithLoss", "",
       [](Net& net) -> Net::Run {
         nn::AdaptiveLogSoftmaxWithLoss layer = net.register_module(
             "layer",
             nn::AdaptiveLogSoftmaxWithLoss(nn::AdaptiveLogSoftmaxWithLossOptions(8, 12, {4, 8}).div_value(2)));
         return [layer](Net&, const at::Tensor& x) mutable {
           return layer->forward(x, torch::arange(x.size(0)).remainder(12)).output.unsqueeze(1);
         };
       },
       randn({10, 8})},
  };
}

/// Modules without parameters, which nothing has to be captured of.
std::map<std::string, std::function<std::shared_ptr<torch::nn::Module>()>> without_parameters() {
  using namespace torch::nn;
#define DDS_WITHOUT(Name, ...)                               \
  {                                                          \
#Name, [] { return torch::nn::Name(__VA_ARGS__).ptr(); } \
  }
  return {
    DDS_WITHOUT(AdaptiveAvgPool1d, 1), DDS_WITHOUT(AdaptiveAvgPool2d, 1), DDS_WITHOUT(AdaptiveAvgPool3d, 1),
        DDS_WITHOUT(AdaptiveMaxPool1d, 1), DDS_WITHOUT(AdaptiveMaxPool2d, 1), DDS_WITHOUT(AdaptiveMaxPool3d, 1),
        DDS_WITHOUT(AlphaDropout), DDS_WITHOUT(AvgPool1d, 2), DDS_WITHOUT(AvgPool2d, 2), DDS_WITHOUT(AvgPool3d, 2),
        DDS_WITHOUT(BCELoss), DDS_WITHOUT(BCEWithLogitsLoss), DDS_WITHOUT(CELU), DDS_WITHOUT(CTCLoss),
        DDS_WITHOUT(ConstantPad1d, 1, 0.0), DDS_WITHOUT(ConstantPad2d, 1, 0.0), DDS_WITHOUT(ConstantPad3d, 1, 0.0),
        DDS_WITHOUT(CosineEmbeddingLoss), DDS_WITHOUT(CosineSimilarity), DDS_WITHOUT(CrossEntropyLoss),
        DDS_WITHOUT(CrossMapLRN2d, 2), DDS_WITHOUT(Dropout), DDS_WITHOUT(Dropout2d), DDS_WITHOUT(Dropout3d),
        DDS_WITHOUT(ELU), DDS_WITHOUT(FeatureAlphaDropout), DDS_WITHOUT(Flatten), DDS_WITHOUT(Fold, FoldOptions(2, 1)),
        DDS_WITHOUT(FractionalMaxPool2d, FractionalMaxPool2dOptions(2).output_size(1)),
        DDS_WITHOUT(FractionalMaxPool3d, FractionalMaxPool3dOptions(2).output_size(1)), DDS_WITHOUT(GELU),
        DDS_WITHOUT(GLU), DDS_WITHOUT(Hardshrink), DDS_WITHOUT(Hardtanh), DDS_WITHOUT(HingeEmbeddingLoss),
        DDS_WITHOUT(HuberLoss), DDS_WITHOUT(Identity), DDS_WITHOUT(KLDivLoss), DDS_WITHOUT(L1Loss),
        DDS_WITHOUT(LPPool1d, LPPool1dOptions(2, 2)), DDS_WITHOUT(LPPool2d, LPPool2dOptions(2, 2)),
#if TORCH_VERSION_MAJOR >= 2
        DDS_WITHOUT(LPPool3d, LPPool3dOptions(2, 2)), DDS_WITHOUT(ZeroPad1d, 1), DDS_WITHOUT(ZeroPad3d, 1),
#endif
        DDS_WITHOUT(LeakyReLU), DDS_WITHOUT(LocalResponseNorm, 2), DDS_WITHOUT(LogSigmoid), DDS_WITHOUT(LogSoftmax, 1),
        DDS_WITHOUT(MSELoss), DDS_WITHOUT(MarginRankingLoss), DDS_WITHOUT(MaxPool1d, 2), DDS_WITHOUT(MaxPool2d, 2),
        DDS_WITHOUT(MaxPool3d, 2), DDS_WITHOUT(MaxUnpool1d, 2), DDS_WITHOUT(MaxUnpool2d, 2),
        DDS_WITHOUT(MaxUnpool3d, 2), DDS_WITHOUT(Mish), DDS_WITHOUT(MultiLabelMarginLoss),
        DDS_WITHOUT(MultiLabelSoftMarginLoss), DDS_WITHOUT(MultiMarginLoss), DDS_WITHOUT(NLLLoss),
        DDS_WITHOUT(PairwiseDistance), DDS_WITHOUT(PixelShuffle, 2), DDS_WITHOUT(PixelUnshuffle, 2),
        DDS_WITHOUT(PoissonNLLLoss), DDS_WITHOUT(RReLU), DDS_WITHOUT(ReLU), DDS_WITHOUT(ReLU6),
        DDS_WITHOUT(ReflectionPad1d, 1), DDS_WITHOUT(ReflectionPad2d, 1), DDS_WITHOUT(ReflectionPad3d, 1),
        DDS_WITHOUT(ReplicationPad1d, 1), DDS_WITHOUT(ReplicationPad2d, 1), DDS_WITHOUT(ReplicationPad3d, 1),
        DDS_WITHOUT(SELU), DDS_WITHOUT(SiLU), DDS_WITHOUT(Sigmoid), DDS_WITHOUT(SmoothL1Loss),
        DDS_WITHOUT(SoftMarginLoss), DDS_WITHOUT(Softmax, 1), DDS_WITHOUT(Softmax2d), DDS_WITHOUT(Softmin, 1),
        DDS_WITHOUT(Softplus), DDS_WITHOUT(Softshrink), DDS_WITHOUT(Softsign), DDS_WITHOUT(Tanh),
        DDS_WITHOUT(Tanhshrink), DDS_WITHOUT(Threshold, 0.1, 0.0), DDS_WITHOUT(TripletMarginLoss),
        DDS_WITHOUT(TripletMarginWithDistanceLoss), DDS_WITHOUT(Unflatten, UnflattenOptions(1, {1, 1})),
        DDS_WITHOUT(Unfold, 2), DDS_WITHOUT(Upsample), DDS_WITHOUT(ZeroPad2d, 1),
  };
#undef DDS_WITHOUT
}

class Coverage : public testing::TestWithParam<Covered> {};

TEST_P(Coverage, PerSampleGradientsAreThoseOfOneByOneBackward) {
  torch::manual_seed(4);
  const auto net = std::make_shared<Net>(GetParam().build);
  net->to(torch::kDouble);
  at::Tensor x = GetParam().input();
  if (x.is_floating_point()) x = x.to(torch::kDouble);
  const auto gradients = per_sample_gradients({*net, test::some_likelihood(), test::data_of(x)});
  const auto exact =
      per_sample_gradients({*net, test::some_likelihood(), test::data_of(x)}, PerSampleOptions().one_by_one(true));
  net->eval();
  const auto reference = one_by_one(*net, test::losses_of(net->forward(x)));

  std::set<std::string> missing;
  for (const auto& parameter : net->named_parameters()) missing.insert(parameter.key());
  for (const std::string& name : gradients.parameters()) missing.erase(name);
  EXPECT_EQ(missing, GetParam().missing);
  EXPECT_EQ(exact.parameters().size(), net->parameters().size());
  for (const PerSampleGradients& which : {gradients, exact}) {
    for (const std::string& name : which.parameters()) {
      ASSERT_TRUE(reference.contains(name)) << name;
      EXPECT_LE(test::relative_difference(which.gradient(name), reference.at(name)), test::kPerSampleTolerance) << name;
      EXPECT_LE(test::relative_difference(which.sum(name), reference.at(name).sum(0)), test::kPerSampleTolerance)
          << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modules, Coverage, testing::ValuesIn(covered()),
                         [](const auto& info) { return name_of(info.param); });

TEST(CoverageTable, HasEveryModuleOfThisLibTorch) {
  std::set<std::string> known;
  for (const Covered& module : covered()) known.insert(module.module);
  for (const auto& [name, make] : without_parameters()) {
    EXPECT_TRUE(make()->parameters().empty()) << name;
    known.insert(name);
  }
  const std::regex declaration("^TORCH_MODULE\\((\\w+)\\);");
  std::int64_t found = 0;
  for (const auto& header : std::filesystem::directory_iterator(test::kTorchModules)) {
    std::ifstream file(header.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, declaration)) continue;
      EXPECT_TRUE(known.contains(match[1].str())) << match[1].str() << " of " << header.path().filename();
      ++found;
    }
  }
  EXPECT_GT(found, 100);
}

/// As coverage.md has it.
std::string table() {
  std::ostringstream text;
  text << "| module of `torch::nn` | parameters | captured | one backward pass for each sample, because "
          "|\n|---|---|---|---|\n";
  for (const Covered& module : covered()) {
    const auto net = std::make_shared<Net>(module.build);
    std::string missing;
    for (const std::string& name : module.missing) {
      missing += (missing.empty() ? "`" : ", `") + name.substr(std::string("layer.").size()) + "`";
    }
    text << "| `" << module.module << "`" << (module.use.empty() ? "" : ", " + module.use) << " | "
         << net->parameters().size() << " | " << (missing.empty() ? "all" : "all but " + missing) << " | "
         << module.reason << " |\n";
  }
  return text.str();
}

TEST(CoverageTable, IsTheCommittedOne) {
  std::ifstream file(test::kCoverageTable);
  const std::string committed((std::istreambuf_iterator<char>(file)), {});
  const std::string present = table();
  EXPECT_TRUE(committed.ends_with("\n\n" + present)) << test::kCoverageTable << " should end with this table:\n"
                                                     << present;
}

}  // namespace
}  // namespace dds
