// Bounds on ranks, against the ranks of generic networks: with weights and data drawn at random the two are equal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/recorder.hpp>
#include <map>

#include "tests/hooks/bounded_rows.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

struct Model : nn::Module {};

/// Registers modules in the model, and returns what runs a step of it.
using Step = std::function<void()>;
using Make = std::function<Step(Model&)>;

/// Hand-derived bounds: "layer side" to rank.
using Expected = std::map<std::string, std::int64_t>;

struct Architecture {
  std::string name;
  Make make;
  Expected expected = {};
};

at::Tensor data(at::IntArrayRef sizes) { return torch::randn(sizes, torch::kDouble); }
at::Tensor labels(std::int64_t count, std::int64_t classes) { return torch::arange(count) % classes; }
void classify(const at::Tensor& logits) { F::cross_entropy(logits, labels(logits.size(0), logits.size(1))).backward(); }
void regress(const at::Tensor& output) { F::mse_loss(output, data(output.sizes())).backward(); }

template <class Module>
Module put(Model& model, const std::string& name, Module module) {
  return model.register_module(name, std::move(module));
}
nn::Linear linear(Model& model, const std::string& name, std::int64_t in, std::int64_t out, bool bias = true) {
  return put(model, name, nn::Linear(nn::LinearOptions(in, out).bias(bias)));
}

std::int64_t rank_of(const at::Tensor& rows) { return torch::linalg_matrix_rank(rows, 1e-9).item<std::int64_t>(); }

Captured captured_of(const Architecture& architecture, Model& model) {
  const Step step = architecture.make(model);
  model.to(torch::kDouble);
  Recorder recorder(model);
  recorder.start();
  step();
  return recorder.take();
}

void expect_bounds_are_ranks(const Captured& captured, const Expected& expected) {
  Expected found;
  test::for_each_side(captured, [&](const std::string& side, const at::Tensor& rows, const RankBound& bound) {
    EXPECT_EQ(bound.rank, rank_of(rows)) << side << " " << bound.unknown;
    EXPECT_EQ(bound.unknown, "") << side;
    found[side] = bound.rank;
  });
  EXPECT_FALSE(found.empty());
  for (const auto& [what, rank] : expected) EXPECT_EQ(found[what], rank) << what;
}

class BoundsOf : public testing::TestWithParam<Architecture> {};

TEST_P(BoundsOf, AGenericNetworkAreItsRanks) {
  torch::manual_seed(test::seed(3));
  Model model;
  const Captured captured = captured_of(GetParam(), model);
  ASSERT_THAT(captured.errors, testing::ElementsAre());
  expect_bounds_are_ranks(captured, GetParam().expected);
}

// ---- linear maps ----

Step chain(Model& model) {
  auto a = linear(model, "a", 16, 4), b = linear(model, "b", 4, 16), c = linear(model, "c", 16, 16);
  const at::Tensor x = data({60, 16});
  return [=]() mutable { regress(c(b(a(x)))); };
}

Step without_biases(Model& model) {
  auto a = linear(model, "a", 9, 3, false), b = linear(model, "b", 3, 8, false), c = linear(model, "c", 8, 12);
  const at::Tensor x = data({60, 9});
  return [=]() mutable { classify(c(b(a(x)))); };
}

/// A batch made of samples, as data loaders make it.
Step stacked_samples(Model& model) {
  auto a = linear(model, "a", 9, 7);
  const at::Tensor all = data({40, 9});
  return [=]() mutable {
    std::vector<at::Tensor> samples;
    for (int i = 0; i < 20; ++i) samples.push_back(all[2 * i]);
    regress(a(torch::stack(samples)));
  };
}

Step stacked_steps(Model& model) {
  auto a = linear(model, "a", 5, 30), b = linear(model, "b", 30, 20);
  const at::Tensor x = data({3, 4, 5});
  return [=]() mutable {
    std::vector<at::Tensor> steps;
    for (int t = 0; t < 3; ++t) steps.push_back(torch::tanh(a(x[t])));
    regress(b(torch::stack(steps, 1)));
  };
}

Step zero_biases(Model& model) {
  auto a = linear(model, "a", 16, 4), b = linear(model, "b", 4, 16);
  const torch::NoGradGuard no_grad;
  a->bias.zero_();
  b->bias.zero_();
  const at::Tensor x = data({60, 16});
  return [=]() mutable { regress(b(a(x))); };
}

Step residual(Model& model) {
  auto in = linear(model, "in", 20, 64), head = linear(model, "head", 64, 10);
  std::vector<nn::Linear> up, down;
  for (int i = 0; i < 3; ++i) {
    up.push_back(linear(model, "up" + std::to_string(i), 64, 96));
    down.push_back(linear(model, "down" + std::to_string(i), 96, 64));
  }
  const at::Tensor x = data({150, 20});
  return [=]() mutable {
    at::Tensor h = in(x);
    for (std::size_t i = 0; i < 3; ++i) h = h + down[i](torch::relu(up[i](h)));
    classify(head(h));
  };
}

Step linear_residual(Model& model) {
  auto in = linear(model, "in", 20, 5), wide = linear(model, "wide", 5, 24), same = linear(model, "same", 24, 24),
       head = linear(model, "head", 24, 4);
  const at::Tensor x = data({80, 20});
  return [=]() mutable {
    const at::Tensor h = wide(in(x));
    classify(head(h + 0.5 * same(h)));
  };
}

Step concatenation(Model& model) {
  auto a = linear(model, "a", 8, 1), b = linear(model, "b", 8, 1), head = linear(model, "head", 2, 10);
  const at::Tensor x = data({80, 8});
  return [=]() mutable { regress(head(torch::cat({a(x), b(x)}, 1))); };
}

Step dense(Model& model) {
  auto a = linear(model, "a", 6, 3), b = linear(model, "b", 9, 20), c = linear(model, "c", 20, 4);
  const at::Tensor x = data({80, 6});
  return [=]() mutable { classify(c(b(torch::cat({x, a(x)}, 1)))); };
}

Step chunks(Model& model) {
  auto all = linear(model, "all", 3, 24), head = linear(model, "head", 8, 12);
  const at::Tensor x = data({80, 3});
  return [=]() mutable {
    const auto parts = all(x).chunk(3, 1);
    regress(head(parts[0] + parts[1] * 2 - parts[2]));
  };
}

Step pairs(Model& model) {
  auto narrow = linear(model, "narrow", 8, 2, false), wide = linear(model, "wide", 2, 12, false),
       head = linear(model, "head", 12, 9);
  const at::Tensor x = data({6, 5, 8});
  return [=]() mutable {
    const at::Tensor h = wide(narrow(x));
    regress(head(h.unsqueeze(1) + h.unsqueeze(2)));
  };
}

Step gates(Model& model) {
  auto a = linear(model, "a", 8, 2), b = linear(model, "b", 8, 2), up = linear(model, "up", 2, 16),
       gate = linear(model, "gate", 2, 16), head = linear(model, "head", 16, 16);
  const at::Tensor x = data({90, 8});
  return [=]() mutable { regress(head(up(a(x)) * gate(b(x)))); };
}

Step squares(Model& model) {
  auto narrow = linear(model, "narrow", 8, 2), wide = linear(model, "wide", 2, 20),
       head = linear(model, "head", 20, 20);
  const at::Tensor x = data({90, 8});
  return [=]() mutable { regress(head(wide(narrow(x)).pow(2))); };
}

Step low_rank_weight(Model& model) {
  auto head = linear(model, "head", 12, 5);
  const at::Tensor down = model.register_parameter("down", data({12, 2})),
                   up = model.register_parameter("up", data({2, 12}));
  const at::Tensor x = data({60, 12});
  return [=]() mutable { classify(head(torch::linear(x, torch::matmul(down, up)))); };
}

// ---- modes ----

Step dropout_in_eval(Model& model) {
  auto a = linear(model, "a", 16, 4), b = linear(model, "b", 4, 16);
  auto dropout = put(model, "dropout", nn::Dropout(0.5));
  dropout->eval();
  const at::Tensor x = data({60, 16});
  return [=]() mutable { classify(b(dropout(a(x)))); };
}

Step dropout_in_training(Model& model) {
  auto a = linear(model, "a", 16, 4), b = linear(model, "b", 4, 16), c = linear(model, "c", 16, 16);
  auto dropout = put(model, "dropout", nn::Dropout(0.5));
  const at::Tensor x = data({90, 16});
  return [=]() mutable { regress(c(dropout(b(a(x))))); };
}

Step batch_norm_in_eval(Model& model) {
  auto a = linear(model, "a", 8, 4), b = linear(model, "b", 4, 16), c = linear(model, "c", 16, 16);
  auto norm = put(model, "norm", nn::BatchNorm1d(16));
  norm->eval();
  norm->running_mean.normal_();
  const at::Tensor x = data({60, 8});
  return [=]() mutable { regress(c(norm(b(a(x))))); };
}

Step batch_norm_in_training(Model& model) {
  auto a = linear(model, "a", 8, 4), b = linear(model, "b", 4, 16), c = linear(model, "c", 16, 3);
  auto norm = put(model, "norm", nn::BatchNorm1d(16));
  const at::Tensor x = data({60, 8});
  return [=]() mutable { classify(c(norm(b(a(x))))); };
}

// ---- pooling, views and positions ----

Step mean_over_positions(Model& model) {
  auto a = linear(model, "a", 6, 32), b = linear(model, "b", 32, 32), head = linear(model, "head", 32, 10);
  const at::Tensor x = data({60, 4, 6});
  return [=]() mutable { classify(head(b(a(x)).mean(1))); };
}

Step average_pooling(Model& model) {
  auto conv = put(model, "conv", nn::Conv2d(nn::Conv2dOptions(3, 32, 3).padding(1)));
  auto point = put(model, "point", nn::Conv2d(nn::Conv2dOptions(32, 24, 1)));
  auto head = linear(model, "head", 24, 10);
  const at::Tensor x = data({30, 3, 6, 6});
  return [=]() mutable {
    classify(head(F::adaptive_avg_pool2d(point(conv(x)), F::AdaptiveAvgPool2dFuncOptions(1)).flatten(1)));
  };
}

Step class_token(Model& model) {
  auto embed = linear(model, "embed", 6, 24), up = linear(model, "up", 24, 24), head = linear(model, "head", 24, 10);
  const at::Tensor token = model.register_parameter("token", data({1, 1, 24}));
  const at::Tensor x = data({7, 5, 6});
  return [=]() mutable {
    const at::Tensor h = torch::cat({token.expand({7, 1, 24}), embed(x)}, 1);
    const at::Tensor mixed = h + h.mean(1, true);
    classify(head((mixed + up(torch::tanh(mixed)))).select(1, 0));
  };
}

Step expanded_positions(Model& model) {
  auto table = put(model, "table", nn::Embedding(50, 16));
  auto head = linear(model, "head", 16, 12);
  return [=]() mutable { regress(head(table(torch::arange(5).expand({8, 5})))); };
}

Step tokens(Model& model) {
  auto table = put(model, "table", nn::Embedding(nn::EmbeddingOptions(30, 16).padding_idx(0)));
  auto positions = put(model, "positions", nn::Embedding(10, 16));
  auto head = linear(model, "head", 16, 30);
  const at::Tensor x = torch::randint(4, {40, 4}, torch::kLong);  // the padding and three others
  return [=]() mutable {
    const at::Tensor h = table(x) + positions(torch::arange(4));
    F::cross_entropy(head(h).transpose(1, 2), torch::randint(30, {40, 4}, torch::kLong)).backward();
  };
}

Step logits(Model& model, const std::function<at::Tensor(const at::Tensor&)>& change) {
  auto a = linear(model, "a", 6, 12), head = linear(model, "head", 12, 10);
  const at::Tensor x = data({60, 6});
  return [=]() mutable {
    const at::Tensor z = change(head(torch::tanh(a(x))));
    F::cross_entropy(z, torch::zeros_like(z.select(1, 0)).to(torch::kLong)).backward();
  };
}

Step images_as_logits(Model& model) {
  auto a = put(model, "a", nn::Conv2d(nn::Conv2dOptions(3, 8, 3))),
       head = put(model, "head", nn::Conv2d(nn::Conv2dOptions(8, 10, 1)));
  const at::Tensor x = data({20, 3, 6, 6});
  return [=]() mutable {
    F::cross_entropy(head(torch::relu(a(x))) / 0.7, torch::arange(320).remainder(10).reshape({20, 4, 4})).backward();
  };
}

Step few_rows(Model& model) {
  auto a = linear(model, "a", 30, 20), head = linear(model, "head", 20, 10);
  const at::Tensor x = data({5, 30});
  return [=]() mutable { classify(head(torch::relu(a(x)))); };
}

Step constant_inputs(Model& model) {
  auto a = linear(model, "a", 12, 20), head = linear(model, "head", 20, 3);
  at::Tensor x = data({60, 12});
  x.slice(1, 0, 4).zero_();
  x.slice(1, 4, 6).fill_(2);
  return [=]() mutable { classify(head(torch::tanh(a(x)))); };
}

// ---- norms ----

Step layer_norm(Model& model, bool affine, double beta) {
  auto a = linear(model, "a", 8, 16), c = linear(model, "c", 16, 24), head = linear(model, "head", 24, 30);
  auto norm = put(model, "norm", nn::LayerNorm(nn::LayerNormOptions({16}).elementwise_affine(affine)));
  if (affine) {
    const torch::NoGradGuard no_grad;
    norm->weight.normal_();
    norm->bias.normal_().mul_(beta);
  }
  const at::Tensor x = data({90, 8});
  return [=]() mutable { regress(head(torch::gelu(c(norm(torch::relu(a(x))))))); };
}

Step norm_by_hand(Model& model) {
  auto a = linear(model, "a", 8, 12), c = linear(model, "c", 12, 16);
  const at::Tensor x = data({90, 8});
  return [=]() mutable {
    const at::Tensor h = torch::relu(a(x)), centred = h - h.mean(-1, true);
    regress(c(centred / (centred.pow(2).mean(-1, true) + 1e-5).sqrt()));
  };
}

Step root_mean_square_by_hand(Model& model) {
  auto a = linear(model, "a", 8, 3), b = linear(model, "b", 3, 12), c = linear(model, "c", 12, 16);
  const at::Tensor x = data({90, 8});
  return [=]() mutable {
    const at::Tensor h = b(a(x));
    regress(c(h * torch::rsqrt(h.pow(2).mean(-1, true) + 1e-5)));
  };
}

Step group_norm(Model& model) {
  auto a = linear(model, "a", 8, 12), c = linear(model, "c", 12, 16);
  auto norm = put(model, "norm", nn::GroupNorm(3, 12));
  const at::Tensor x = data({90, 8});
  return [=]() mutable { regress(c(norm(torch::relu(a(x))))); };
}

/// A transformer of two pre-norm blocks, as it is initialised.
Step transformer(Model& model, bool pools) {
  const std::int64_t width = 16, vocabulary = 40, length = 6;
  auto table = put(model, "table", nn::Embedding(vocabulary, width)),
       positions = put(model, "positions", nn::Embedding(length, width));
  struct Block {
    nn::LayerNorm first{nullptr}, second{nullptr};
    nn::Linear qkv{nullptr}, out{nullptr}, up{nullptr}, down{nullptr};
  };
  std::vector<Block> blocks;
  for (const std::string i : {"0", "1"}) {
    Block block;
    block.first = put(model, "first" + i, nn::LayerNorm(nn::LayerNormOptions({width})));
    block.second = put(model, "second" + i, nn::LayerNorm(nn::LayerNormOptions({width})));
    block.qkv = linear(model, "qkv" + i, width, 3 * width);
    block.out = linear(model, "out" + i, width, width);
    block.up = linear(model, "up" + i, width, 4 * width);
    block.down = linear(model, "down" + i, 4 * width, width);
    blocks.push_back(block);
  }
  auto last = put(model, "last", nn::LayerNorm(nn::LayerNormOptions({width})));
  auto head = linear(model, "head", width, pools ? 5 : vocabulary, false);
  const at::Tensor x = torch::randint(vocabulary, {50, length}, torch::kLong);
  return [=]() mutable {
    at::Tensor h = table(x) + positions(torch::arange(length));
    for (Block& block : blocks) {
      const auto parts = block.qkv(block.first(h)).chunk(3, -1);
      const auto heads = [&](const at::Tensor& t) { return t.view({50, length, 2, width / 2}).transpose(1, 2); };
      const at::Tensor scores = torch::matmul(heads(parts[0]), heads(parts[1]).transpose(-2, -1)) / 2.8;
      const at::Tensor mixed = torch::matmul(torch::softmax(scores, -1), heads(parts[2]));
      h = h + block.out(mixed.transpose(1, 2).reshape({50, length, width}));
      h = h + block.down(torch::gelu(block.up(block.second(h))));
    }
    if (pools) {
      classify(head(last(h).mean(1)));
    } else {
      F::cross_entropy(head(last(h)).view({-1, vocabulary}), x.view({-1})).backward();
    }
  };
}

// ---- several runs ----

Step siamese(Model& model) {
  auto a = linear(model, "a", 8, 4), b = linear(model, "b", 4, 24), head = linear(model, "head", 24, 5);
  const at::Tensor x = data({60, 8}), y = data({60, 8});
  return [=]() mutable { classify(head(b(a(x)) - b(a(y)))); };
}

Step micro_batches(Model& model) {
  auto a = linear(model, "a", 8, 4), b = linear(model, "b", 4, 24), head = linear(model, "head", 24, 5);
  return [=]() mutable {
    for (int i = 0; i < 3; ++i) classify(head(torch::relu(b(a(data({60, 8}))))));
  };
}

Step tied(Model& model) {
  auto a = linear(model, "a", 8, 3), b = linear(model, "b", 3, 8), head = linear(model, "head", 8, 5);
  const at::Tensor x = data({60, 8});
  return [=]() mutable { classify(head(b(a(torch::tanh(b(a(x))))))); };
}

Step recurrent(Model& model) {
  auto lstm = put(model, "lstm", nn::LSTM(nn::LSTMOptions(5, 12).batch_first(true)));
  auto head = linear(model, "head", 12, 4);
  const at::Tensor x = data({30, 6, 5});
  return [=]() mutable { classify(head(std::get<0>(lstm(x)).select(1, -1))); };
}

Step convolutions(Model& model) {
  auto stem = put(model, "stem", nn::Conv2d(nn::Conv2dOptions(3, 8, 3).padding(1).bias(false)));
  auto norm = put(model, "norm", nn::BatchNorm2d(8));
  auto deep = put(model, "deep", nn::Conv2d(nn::Conv2dOptions(8, 8, 3).padding(1).groups(8)));
  auto point = put(model, "point", nn::Conv2d(nn::Conv2dOptions(8, 16, 1)));
  auto small = put(model, "small", nn::Conv2d(nn::Conv2dOptions(16, 20, 3).padding(1)));
  auto head = linear(model, "head", 20, 6);
  const at::Tensor x = data({40, 3, 8, 8});
  return [=]() mutable {
    at::Tensor h = norm(stem(x)).relu_();
    h = h + torch::gelu(deep(h));
    h = F::max_pool2d(torch::gelu(point(h)), F::MaxPool2dFuncOptions(8));
    classify(head(torch::gelu(small(h)).flatten(1)));
  };
}

Step logged(Model& model) {
  auto a = linear(model, "a", 8, 12), head = linear(model, "head", 12, 4);
  const at::Tensor x = data({60, 8});
  return [=]() mutable {
    const at::Tensor h = a(x), z = head(h);
    const at::Tensor norm = h.norm(), seen = z.softmax(1).pow(2).sum();  // for a log
    classify(z);
  };
}

INSTANTIATE_TEST_SUITE_P(
    Linear, BoundsOf,
    testing::Values(Architecture{"chain", chain, {{"c output", 5}, {"a gradient", 4}}},
                    Architecture{
                        "withoutBiases", without_biases, {{"b output", 3}, {"c output", 4}, {"c gradient", 11}}},
                    Architecture{"stackedSamples", stacked_samples, {{"a output", 7}, {"a input", 9}}},
                    Architecture{"stackedSteps", stacked_steps, {{"a output", 6}, {"b output", 12}}},
                    Architecture{"zeroBiases", zero_biases, {{"b output", 4}}},
                    Architecture{"residual", residual, {{"down2 gradient", 9}, {"down1 gradient", 64}}},
                    Architecture{"linearResidual", linear_residual, {{"same output", 6}, {"wide gradient", 3}}},
                    Architecture{"concatenation", concatenation, {{"head output", 3}}},
                    Architecture{"dense", dense, {{"b output", 7}}},
                    Architecture{"chunks", chunks, {{"all output", 4}, {"all gradient", 8}}},
                    Architecture{"pairs", pairs, {{"head output", 3}}},
                    Architecture{"gates", gates, {{"head input", 9}}},
                    Architecture{"squares", squares, {{"head input", 6}}},
                    Architecture{"lowRankWeight", low_rank_weight, {{"head output", 3}}}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Modes, BoundsOf,
    testing::Values(Architecture{"dropoutInEval", dropout_in_eval, {{"b output", 5}, {"a gradient", 4}}},
                    Architecture{"dropoutInTraining", dropout_in_training, {{"c input", 16}}},
                    Architecture{"batchNormInEval", batch_norm_in_eval, {{"c output", 5}}},
                    Architecture{"batchNormInTraining", batch_norm_in_training, {{"norm output", 4}}}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Positions, BoundsOf,
    testing::Values(Architecture{"meanOverPositions", mean_over_positions, {{"b gradient", 9}, {"a gradient", 9}}},
                    Architecture{"averagePooling", average_pooling, {{"point gradient", 9}}},
                    Architecture{"classToken", class_token, {{"up gradient", 7}, {"embed gradient", 7}}},
                    Architecture{"expandedPositions", expanded_positions, {{"table output", 5}, {"head input", 5}}},
                    Architecture{"tokens", tokens, {{"table output", 3}, {"head input", 7}}},
                    Architecture{"view",
                                 [](Model& m) {
                                   return logits(m, [](const at::Tensor& z) { return z.view({60, 10, 1, 1}); });
                                 },
                                 {{"head gradient", 9}}},
                    Architecture{"division",
                                 [](Model& m) { return logits(m, [](const at::Tensor& z) { return z / 0.5; }); },
                                 {{"head gradient", 9}}},
                    Architecture{"temperature",
                                 [](Model& m) {
                                   return logits(
                                       m, [](const at::Tensor& z) { return z * torch::tensor(2.0, torch::kDouble); });
                                 },
                                 {{"head gradient", 9}}},
                    Architecture{"sequence",
                                 [](Model& m) {
                                   return logits(m, [](const at::Tensor& z) {
                                     return z.view({12, 5, 10}).permute({0, 2, 1});
                                   });
                                 },
                                 {{"head gradient", 9}}},
                    Architecture{"imagesAsLogits", images_as_logits, {{"head gradient", 9}}},
                    Architecture{"fewRows", few_rows, {{"a output", 5}, {"a gradient", 5}}},
                    Architecture{"constantInputs", constant_inputs, {{"a input", 7}, {"a output", 7}}}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Norms, BoundsOf,
    testing::Values(
        Architecture{"withBias",
                     [](Model& m) { return layer_norm(m, true, 1); },
                     {{"norm output", 16}, {"c output", 16}, {"a gradient", 16}}},
        Architecture{
            "zeroBias", [](Model& m) { return layer_norm(m, true, 0); }, {{"norm output", 15}, {"c output", 16}}},
        Architecture{"plain", [](Model& m) { return layer_norm(m, false, 0); }, {{"c output", 16}}},
        Architecture{"byHand", norm_by_hand, {{"c input", 11}}},
        Architecture{"rootMeanSquareByHand", root_mean_square_by_hand, {{"c input", 4}}},
        Architecture{"group", group_norm, {{"norm output", 9}}},
        Architecture{"transformer",
                     [](Model& m) { return transformer(m, false); },
                     {{"first0 output", 15}, {"out1 gradient", 15}, {"table gradient", 15}, {"head gradient", 39}}},
        Architecture{"pooledTransformer", [](Model& m) { return transformer(m, true); }, {{"last gradient", 4}}}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Runs, BoundsOf,
                         testing::Values(Architecture{"siamese", siamese, {{"b output", 5}, {"b gradient", 4}}},
                                         Architecture{
                                             "microBatches", micro_batches, {{"b output", 5}, {"head gradient", 4}}},
                                         Architecture{"tied", tied, {{"b output", 4}}},
                                         Architecture{"recurrent", recurrent, {{"lstm gradient", 3}}},
                                         Architecture{"convolutions", convolutions, {{"head gradient", 5}}},
                                         Architecture{"logged", logged, {{"a gradient", 3}}}),
                         [](const auto& info) { return info.param.name; });

// ---- what is not known ----

/// The identity, by a function that no operator is seen of.
struct Copy : torch::autograd::Function<Copy> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) {
    at::Tensor y = torch::empty(x.sizes(), x.options());
    std::copy_n(x.data_ptr<double>(), x.numel(), y.data_ptr<double>());
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list gradients) {
    return gradients;
  }
};

const CapturedLayer& layer_of(const Captured& captured, const std::string& name) {
  for (const CapturedLayer& layer : captured.layers) {
    if (layer.layer == name) return layer;
  }
  throw std::runtime_error("no layer " + name);
}

TEST(BoundsOfTheUnknown, ACustomFunctionMayReadWhatALayerReads) {
  torch::manual_seed(test::seed(3));
  for (const bool last : {false, true}) {
    Model model;
    const Architecture architecture{
        "", [last](Model& m) -> Step {
          auto a = linear(m, "a", 8, 10), b = linear(m, "b", 10, 2);
          const at::Tensor x = data({60, 8}), w = data({60, 10});
          return [=]() mutable {
            const at::Tensor h = a(x), other = Copy::apply(h);
            if (last) {
              torch::autograd::backward({F::mse_loss(b(h), data({60, 2})), other}, {at::Tensor(), w});
            } else {
              (F::mse_loss(b(h), data({60, 2})) + (other * w).sum()).backward();
            }
          };
        }};
    const Captured captured = captured_of(architecture, model);
    const CapturedLayer& a = layer_of(captured, "a");
    EXPECT_EQ(rank_of(a.calls[0].gradient()), 10);
    if (last) continue;
    EXPECT_EQ(a.gradient_bound.rank, 10);
    EXPECT_THAT(a.gradient_bound.unknown, testing::HasSubstr("Copy"));
  }
}

// Beside the loss, or instead of it: at what nothing else reads, at what a layer reads, and at a layer's output.
TEST(BoundsOfTheUnknown, ABackwardPassMayBeginWithAGradientOfTheProgramsOwn) {
  using torch::autograd::backward;
  const std::map<std::string, std::function<void(at::Tensor h, at::Tensor read, at::Tensor loss, at::Tensor own)>> ways{
      {"beside",
       [](auto h, auto, auto loss, auto own) {
         backward({loss, torch::tanh(h)}, {at::Tensor(), own});
       }},
      {"read",
       [](auto, auto read, auto loss, auto own) {
         backward({loss, read}, {at::Tensor(), own});
       }},
      {"output",
       [](auto h, auto, auto loss, auto own) {
         backward({loss, h}, {at::Tensor(), own});
       }},
      {"later",
       [](auto h, auto, auto loss, auto own) {
         const at::Tensor other = torch::tanh(h);
         loss.backward({}, true);
         other.backward(own);
       }},
      {"laterRead", [](auto, auto read, auto loss, auto own) {
         loss.backward({}, true);
         read.backward(own);
       }}};
  torch::manual_seed(test::seed(3));
  for (const auto& [name, way] : ways) {
    Model model;
    const Captured captured = captured_of({"",
                                           [way = way](Model& m) -> Step {
                                             auto a = linear(m, "a", 8, 10), b = linear(m, "b", 10, 2);
                                             const at::Tensor x = data({60, 8}), own = data({60, 10});
                                             return [=]() mutable {
                                               const at::Tensor h = a(x), read = h * 2;
                                               way(h, read, F::mse_loss(b(read), data({60, 2})), own);
                                             };
                                           }},
                                          model);
    const CapturedLayer& a = layer_of(captured, "a");
    EXPECT_EQ(rank_of(a.calls[0].gradient()), 10) << name;
    EXPECT_GE(a.gradient_bound.rank, 10) << name;
    EXPECT_NE(a.gradient_bound.unknown, "") << name;
  }
}

// The head behind it has no part in the pass.
TEST(BoundsOfTheUnknown, AGradientOfTheProgramsOwnAloneIsTheWholeGradient) {
  torch::manual_seed(test::seed(3));
  Model model;
  const Captured captured = captured_of({"",
                                         [](Model& m) -> Step {
                                           auto a = linear(m, "a", 8, 10), b = linear(m, "b", 10, 2);
                                           const at::Tensor x = data({60, 8}), own = data({60, 10});
                                           return [=]() mutable {
                                             const at::Tensor read = a(x) * 2, z = b(read);
                                             read.backward(own);
                                           };
                                         }},
                                        model);
  const CapturedLayer& a = layer_of(captured, "a");
  EXPECT_EQ(rank_of(a.calls[0].gradient()), 10);
  EXPECT_EQ(a.gradient_bound.rank, 10);
  EXPECT_EQ(a.gradient_bound.unknown, "");
}

TEST(BoundsOfTheUnknown, ABoundBehindAnOperatorWithoutARuleNamesIt) {
  torch::manual_seed(test::seed(3));
  Model model;
  const Captured captured = captured_of({"",
                                         [](Model& m) -> Step {
                                           auto a = linear(m, "a", 8, 12), b = linear(m, "b", 12, 20),
                                                c = linear(m, "c", 8, 20);
                                           const at::Tensor x = data({60, 8});
                                           return [=]() mutable { regress(b(torch::special::i0(a(x))) + c(x)); };
                                         }},
                                        model);
  EXPECT_EQ(layer_of(captured, "b").output_bound.rank, 13);
  EXPECT_EQ(layer_of(captured, "b").output_bound.unknown, "aten::i0");
  EXPECT_EQ(layer_of(captured, "a").gradient_bound.unknown, "aten::i0");
  EXPECT_EQ(layer_of(captured, "c").output_bound.unknown, "");
}

TEST(RankBounds, OfSeveralRecordingsAddUp) {
  RankBound bound;
  bound.add({.rank = 3, .shape = 10});
  EXPECT_EQ(bound.rank, 3);
  bound.add({.rank = 4, .shape = 10});
  EXPECT_EQ(bound.rank, 7);
  bound.add({.rank = 5, .shape = 10});
  EXPECT_EQ(bound.rank, 10);
  EXPECT_EQ(bound.unknown, "");
  RankBound tokens{.rank = 3, .shape = 10, .adds = false};
  tokens.add({.rank = 4, .shape = 10, .adds = false});
  EXPECT_EQ(tokens.rank, 7);
  EXPECT_NE(tokens.unknown, "") << "the tokens of two batches may be the same";
  EXPECT_EQ((RankBound{.rank = 3, .shape = 10}).times(2).rank, 6);
  EXPECT_EQ((RankBound{.rank = 3, .shape = 5}).times(2).rank, 5);
}

}  // namespace
}  // namespace dds
