// Which rows belong to which sample: each row is decided by itself, and what stays ambiguous is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/per_sample.hpp>
#include <dds/recorder.hpp>
#include <string>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;
using test::data_of;
using test::losses_of;
using test::Net;
using test::one_by_one;
using test::relative_difference;
using test::some_likelihood;

/// l_i = target_i times the sum of output i: the target is the size of the sample's gradient.
LikelihoodPtr scaled() {
  return likelihood(
      "scaled", [](const at::Tensor& output, const at::Tensor& targets) { return output.flatten(1).sum(1) * targets; });
}

/// l_i of samples whose gradients have very different sizes.
LikelihoodPtr of_many_sizes() {
  return likelihood("many sizes",
                    [](const at::Tensor& output, const at::Tensor& sizes) { return losses_of(output) * sizes; });
}

/// Every sample's gradient against one-by-one backward, relative to that sample's own size.
void expect_each(const PerSampleGradients& gradients, const std::map<std::string, at::Tensor>& reference,
                 double tolerance) {
  for (const PerSampleLayer& layer : gradients.layers()) {
    ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
  }
  ASSERT_FALSE(gradients.parameters().empty());
  for (const std::string& name : gradients.parameters()) {
    const at::Tensor rows = gradients.gradient(name);
    for (std::int64_t i = 0; i < gradients.samples(); ++i) {
      EXPECT_LE(relative_difference(rows[i], reference.at(name)[i]), tolerance) << name << ", sample " << i;
    }
  }
}

/// A weight of one entry, 1 at first, run by `use`.
std::shared_ptr<Net> one_weight(std::function<at::Tensor(const at::Tensor& p, const at::Tensor& x)> use) {
  return std::make_shared<Net>([use](Net& net) -> Net::Run {
    net.register_parameter("p", torch::ones({1, 1}, torch::kDouble));
    return [use](Net& net, const at::Tensor& x) { return use(net.named_parameters()["p"], x); };
  });
}

// One row of sample 0, two of sample 1.
TEST(RowsOfSamples, RaggedOnesAreToldApart) {
  const auto net = one_weight([](const at::Tensor& p, const at::Tensor& x) {
    const at::Tensor rows = torch::stack({x[0][0], x[1][0], x[1][1]}).unsqueeze(1).mm(p);
    return torch::zeros({2, 1}, rows.options()).index_add(0, torch::tensor({0, 1, 1}), rows);
  });
  const at::Tensor x = torch::tensor({{1., 0.}, {1., 2.}}, torch::kDouble);
  for (const double residual : {10., 30., 1e4, 1e9}) {
    const at::Tensor sizes = torch::tensor({residual, 1.}, torch::kDouble);
    const auto gradients = per_sample_gradients({*net, scaled(), Data(x, sizes)});
    EXPECT_EQ(to_string(gradients.layers()[0].status), "ok");
    const at::Tensor right = torch::tensor({residual, 3.}, torch::kDouble);
    EXPECT_TRUE(torch::equal(gradients.gradient("p").flatten(), right)) << gradients.gradient("p");
  }
}

// (positions, samples), as many of one as of the other, of which the first position is read.
TEST(RowsOfSamples, ASequenceFirstOfWhichOnePositionCounts) {
  const auto net =
      one_weight([](const at::Tensor& p, const at::Tensor& x) { return x.t().unsqueeze(2).matmul(p).select(0, 0); });
  const at::Tensor x = torch::tensor({{1., 5.}, {1., 7.}}, torch::kDouble);
  const at::Tensor sizes = torch::tensor({30., 2.}, torch::kDouble);
  const auto gradients = per_sample_gradients({*net, scaled(), Data(x, sizes)});
  EXPECT_TRUE(torch::equal(gradients.gradient("p").flatten(), sizes));
}

/// A layer, run in a way that its shapes do not tell the samples from the positions: (n, t, 3) -> (n, ...).
struct Order {
  std::string name;
  std::function<Net::Run(Net&)> build;
};
void PrintTo(const Order& order, std::ostream* os) { *os << order.name; }

std::vector<Order> orders() {
  const auto linear = [](auto run) -> std::function<Net::Run(Net&)> {
    return [run](Net& net) -> Net::Run {
      nn::Linear layer = net.register_module("layer", nn::Linear(3, 4));
      return [layer, run](Net&, const at::Tensor& x) mutable { return run(layer, x); };
    };
  };
  const auto lstm = [](auto run) -> std::function<Net::Run(Net&)> {
    return [run](Net& net) -> Net::Run {
      nn::LSTM layer = net.register_module("layer", nn::LSTM(nn::LSTMOptions(3, 4).batch_first(true)));
      return [layer, run](Net&, const at::Tensor& x) mutable { return run(layer, x); };
    };
  };
  const auto turned = [](const at::Tensor& x, std::int64_t dim) { return x.flip(dim); };
  return {
      {"SequenceFirst",
       linear([](nn::Linear& l, const at::Tensor& x) { return l(x.transpose(0, 1)).transpose(0, 1); })},
      {"FoldedPositionMajor", linear([](nn::Linear& l, const at::Tensor& x) {
         return l(x.transpose(0, 1).flatten(0, 1)).unflatten(0, {x.size(1), x.size(0)}).transpose(0, 1);
       })},
      {"TwoSamplesExchanged", linear([](nn::Linear& l, const at::Tensor& x) {
         at::Tensor order = torch::arange(x.size(0));
         order[1] = 3, order[3] = 1;
         return l(x.index_select(0, order)).index_select(0, order);
       })},
      {"RowsOfSomeSamplesOnly", linear([](nn::Linear& l, const at::Tensor& x) {
         const at::Tensor owner = torch::tensor({3, 0, 0, 4, 1, 1, 1});
         return torch::zeros({x.size(0), 4}, x.options()).index_add(0, owner, l(x.flatten(0, 1).narrow(0, 4, 7)));
       })},
      {"OneSampleAtATime", linear([](nn::Linear& l, const at::Tensor& x) {
         std::vector<at::Tensor> outputs;
         for (std::int64_t i = 0; i < x.size(0); ++i) outputs.push_back(l(x[i]));
         return torch::stack(outputs);
       })},
      {"OneVectorAtATime", linear([](nn::Linear& l, const at::Tensor& x) {
         std::vector<at::Tensor> outputs;
         for (std::int64_t i = 0; i < x.size(0); ++i) outputs.push_back(l(x[i][i]));
         return torch::stack(outputs);
       })},
      {"LastStatesInAnotherOrder", lstm([turned](nn::LSTM& l, const at::Tensor& x) {
         return turned(std::get<0>(std::get<1>(l(turned(x, 0))))[0], 0);
       })},
      {"LastCellsOfSomeOutputsOfOthers", lstm([turned](nn::LSTM& l, const at::Tensor& x) {
         const auto [output, states] = l(turned(x, 0));
         const at::Tensor first = (torch::arange(x.size(0)) < 2).unsqueeze(1);
         return turned(torch::where(first, output.select(1, 2), std::get<1>(states)[0]), 0);
       })},
      {"RecurrentOneSampleAtATime", lstm([](nn::LSTM& l, const at::Tensor& x) {
         std::vector<at::Tensor> outputs;
         for (std::int64_t i = 0; i < x.size(0); ++i) outputs.push_back(std::get<0>(l(x[i].unsqueeze(0))));
         return torch::cat(outputs);
       })},
  };
}

class RowsInSomeOrder : public testing::TestWithParam<Order> {};

// As many positions as samples, and gradients from 1 down to 1e-12.
TEST_P(RowsInSomeOrder, AreToldApartHoweverSmallTheGradientOfASample) {
  torch::manual_seed(3);
  const auto net = std::make_shared<Net>(GetParam().build);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({5, 5, 3}, torch::kDouble);
  const at::Tensor sizes = torch::pow(10.0, -3 * torch::tensor({3., 0., 4., 1., 2.}, torch::kDouble));
  const auto reference = one_by_one(*net, losses_of(net->forward(x)) * sizes);
  expect_each(per_sample_gradients({*net, of_many_sizes(), Data(x, sizes)}), reference, 1e-10);
  net->to(torch::kFloat);
  const auto coarse = per_sample_gradients({*net, of_many_sizes(), Data(x.to(torch::kFloat), sizes.to(torch::kFloat))});
  expect_each(coarse, reference, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Orders, RowsInSomeOrder, testing::ValuesIn(orders()),
                         [](const auto& info) { return info.param.name; });

// More samples than one pass, and than two, tell apart.
TEST(RowsOfSamples, ManyInAnyOrder) {
  torch::manual_seed(0);
  for (const std::int64_t n : {17, 300}) {
    const at::Tensor order = torch::randperm(n), back = order.argsort();
    const auto net = std::make_shared<Net>([&](Net& net) -> Net::Run {
      nn::Linear layer = net.register_module("layer", nn::Linear(2, 1));
      return [=](Net&, const at::Tensor& x) mutable { return layer(x.index_select(0, order)).index_select(0, back); };
    });
    const at::Tensor x = torch::randn({n, 2});
    const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
    expect_each(gradients, one_by_one(*net, losses_of(net->forward(x))), 1e-4);
  }
}

class RowsInLowPrecision : public testing::TestWithParam<at::ScalarType> {};

TEST_P(RowsInLowPrecision, AreMeasuredToo) {
  torch::manual_seed(0);
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    nn::Linear layer = net.register_module("layer", nn::Linear(3, 2));
    return [layer](Net&, const at::Tensor& x) mutable { return layer(x.flip(0)).flip(0); };
  });
  const at::Tensor x = torch::randn({4, 3}).to(GetParam());
  net->to(GetParam());
  const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
  ASSERT_EQ(to_string(gradients.layers()[0].status), "ok") << gradients.layers()[0].detail;
  const auto reference = one_by_one(*net, losses_of(net->forward(x)));
  for (std::int64_t i = 0; i < 4; ++i) {
    const at::Tensor right = reference.at("layer.weight")[i].to(torch::kFloat);
    EXPECT_LE(relative_difference(gradients.gradient("layer.weight")[i], right), 0.05) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Types, RowsInLowPrecision, testing::Values(torch::kBFloat16));

// ---- rows of several samples ----

// A row that all samples add to, with small whole numbers, which cancel and agree by chance more often than others.
TEST(RowsOfSeveralSamples, AreNotTakenForThoseOfOne) {
  const auto net = one_weight([](const at::Tensor& p, const at::Tensor& x) {
    return x * torch::ones({1, 1}, x.options()).mm(p);
  });
  int refused = 0;
  for (int a = -2; a <= 2; ++a) {
    for (int b = -2; b <= 2; ++b) {
      for (int c = -2; c <= 2; ++c) {
        const at::Tensor x = torch::tensor({{1. * a}, {1. * b}, {1. * c}}, torch::kDouble);
        const auto gradients = per_sample_gradients({*net, scaled(), Data(x, torch::ones({3}, torch::kDouble))});
        const bool alone = (a != 0) + (b != 0) + (c != 0) <= 1;
        ASSERT_EQ(to_string(gradients.layers()[0].status), alone ? "ok" : "samples_unknown") << a << b << c;
        if (alone) {
          EXPECT_TRUE(torch::equal(gradients.gradient("p").flatten(), x.flatten())) << a << b << c;
        }
        refused += !alone;
      }
    }
  }
  EXPECT_EQ(refused, 125 - 13);
}

// Each sample has a small share of all others.
TEST(RowsOfSeveralSamples, AreRefusedHoweverWeaklyTheyMix) {
  torch::manual_seed(0);
  for (const auto& [type, share] :
       {std::pair{torch::kDouble, 0.05}, {torch::kDouble, 1e-6}, {torch::kFloat, 0.05}, {torch::kFloat, 5e-3}}) {
    const auto net = std::make_shared<Net>([share = share](Net& net) -> Net::Run {
      nn::Linear layer = net.register_module("layer", nn::Linear(3, 4));
      nn::Linear head = net.register_module("head", nn::Linear(4, 2));
      return [layer, head, share](Net&, const at::Tensor& x) mutable {
        const at::Tensor s = layer(x);
        return head((s - share * s.mean(0)).tanh());
      };
    });
    net->to(type);
    const at::Tensor x = torch::randn({8, 3}).to(type);
    const auto gradients = per_sample_gradients({*net, some_likelihood(), data_of(x)});
    EXPECT_EQ(to_string(gradients.layers()[0].status), "samples_unknown") << share;
    EXPECT_EQ(to_string(gradients.layers()[1].status), "ok") << share;
  }
}

// ---- positions that all samples share ----

/// A table of positions, as many as there are samples, that each sample reads in its own way: l_i = x_i . p.
std::shared_ptr<Net> positions(std::function<Net::Run(Net&)> build) { return std::make_shared<Net>(build); }

std::vector<Order> tables() {
  return {
      {"Embedding",
       [](Net& net) -> Net::Run {
         nn::Embedding layer = net.register_module("layer", nn::Embedding(6, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::arange(x.size(1))).t(); };
       }},
      {"EmbeddingOfLaterPositions",
       [](Net& net) -> Net::Run {
         nn::Embedding layer = net.register_module("layer", nn::Embedding(6, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::arange(2, 2 + x.size(1))).t(); };
       }},
      {"LinearOfABuffer",
       [](Net& net) -> Net::Run {
         const at::Tensor table = net.register_buffer("table", torch::randn({8, 3}));
         nn::Linear layer = net.register_module("layer", nn::Linear(3, 1));
         return [layer](Net& net, const at::Tensor& x) mutable {
           return x * layer(net.named_buffers()["table"].narrow(0, 0, x.size(1))).t();
         };
       }},
      {"NormOfAParameter",
       [](Net& net) -> Net::Run {
         net.register_parameter("table", torch::randn({4, 3}));
         nn::LayerNorm layer = net.register_module("layer", nn::LayerNorm(nn::LayerNormOptions({3})));
         return [layer](Net& net, const at::Tensor& x) mutable {
           return x * layer(net.named_parameters()["table"]).select(1, 0);
         };
       }},
      {"LinearOfALinspace",
       [](Net& net) -> Net::Run {
         nn::Linear layer = net.register_module("layer", nn::Linear(1, 1));
         return [layer](Net&, const at::Tensor& x) mutable {
           return x * layer(torch::linspace(0, 1, x.size(1), x.options()).unsqueeze(1)).t();
         };
       }},
      {"LinearOfAnEye",
       [](Net& net) -> Net::Run {
         nn::Linear layer = net.register_module("layer", nn::Linear(4, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::eye(4, x.options())).t(); };
       }},
      {"EmbeddingOfComputedIds",
       [](Net& net) -> Net::Run {
         nn::Embedding layer = net.register_module("layer", nn::Embedding(9, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::arange(4).mul(2).add(1)).t(); };
       }},
      {"EmbeddingOfConstantIds",
       [](Net& net) -> Net::Run {
         nn::Embedding layer = net.register_module("layer", nn::Embedding(9, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::tensor({3, 1, 7, 0})).t(); };
       }},
      {"EmbeddingOfIdsOfTheProgram",
       [](Net& net) -> Net::Run {
         nn::Embedding layer = net.register_module("layer", nn::Embedding(9, 1));
         const at::Tensor ids = torch::tensor({3, 1, 7, 0});
         return [layer, ids](Net&, const at::Tensor& x) mutable { return x * layer(ids).t(); };
       }},
      {"SecondLayerOfABuffer",
       [](Net& net) -> Net::Run {
         const at::Tensor table = net.register_buffer("table", torch::randn({4, 3}));
         nn::Linear first = net.register_module("first", nn::Linear(3, 5));
         nn::Linear layer = net.register_module("layer", nn::Linear(5, 1));
         return [first, layer](Net& net, const at::Tensor& x) mutable {
           return x * layer(first(net.named_buffers()["table"]).relu()).t();
         };
       }},
      {"LinearOfTheTransposedInput",
       [](Net& net) -> Net::Run {
         nn::Linear layer = net.register_module("layer", nn::Linear(4, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(x.t()).t(); };
       }},
      {"ConvolutionOfConstants",
       [](Net& net) -> Net::Run {
         nn::Conv1d layer = net.register_module("layer", nn::Conv1d(2, 1, 3));
         return [layer](Net&, const at::Tensor& x) mutable {
           return x * layer(torch::arange(24, x.options()).view({4, 2, 3}).sin()).flatten().unsqueeze(0);
         };
       }},
      {"RecurrenceOverConstants",
       [](Net& net) -> Net::Run {
         nn::GRU layer = net.register_module("layer", nn::GRU(nn::GRUOptions(2, 1).batch_first(true)));
         return [layer](Net&, const at::Tensor& x) mutable {
           const at::Tensor table = torch::arange(24, x.options()).view({4, 3, 2}).sin();
           return x * std::get<0>(layer(table)).select(1, 2).t();
         };
       }},
      {"BagsOfConstants",
       [](Net& net) -> Net::Run {
         nn::EmbeddingBag layer = net.register_module("layer", nn::EmbeddingBag(9, 1));
         return [layer](Net&, const at::Tensor& x) mutable { return x * layer(torch::arange(8).view({4, 2})).t(); };
       }},
      {"LinearBesideTokens",
       [](Net& net) -> Net::Run {
         nn::Linear layer = net.register_module("layer", nn::Linear(3, 2));
         nn::Linear tokens = net.register_module("tokens", nn::Linear(1, 2));
         return [layer, tokens](Net&, const at::Tensor& x) mutable {
           const at::Tensor table = torch::arange(3 * x.size(1), x.options()).view({-1, 3}).sin();
           return (tokens(x.unsqueeze(2)) * layer(table)).sum(2);
         };
       }},
  };
}

class SharedPositions : public testing::TestWithParam<Order> {
 protected:
  SharedPositions() {
    torch::manual_seed(4);
    net = positions(GetParam().build);
    net->to(torch::kDouble);
    x = torch::randn({4, 4}, torch::kDouble);
  }
  std::shared_ptr<Net> net;
  at::Tensor x;
};

TEST_P(SharedPositions, AreNotTakenForSamples) {
  const auto measured = per_sample_gradients({*net, some_likelihood(), data_of(x)});
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(net->forward(x)).sum().backward();
  const auto recorded = per_sample_gradients(*net, recorder.take(), x.size(0));
  for (const PerSampleGradients* gradients : {&measured, &recorded}) {
    for (const PerSampleLayer& layer : gradients->layers()) {
      if (layer.name != "layer") continue;
      EXPECT_EQ(to_string(layer.status), "samples_unknown") << layer.detail;
    }
  }
  const auto exact = per_sample_gradients({*net, some_likelihood(), data_of(x)}, PerSampleOptions().one_by_one(true));
  expect_each(exact, one_by_one(*net, losses_of(net->forward(x))), test::kPerSampleTolerance);
}

INSTANTIATE_TEST_SUITE_P(Tables, SharedPositions, testing::ValuesIn(tables()),
                         [](const auto& info) { return info.param.name; });

// What has no positions is a recording without them.
TEST(RecordedRows, OfOneEachAreSamples) {
  torch::manual_seed(0);
  nn::Sequential model(nn::Embedding(9, 3), nn::Linear(3, 4), nn::Tanh(), nn::LayerNorm(nn::LayerNormOptions({4})),
                       nn::Linear(4, 2));
  model->to(torch::kDouble);
  const at::Tensor x = torch::tensor({3, 4, 6, 0, 3});
  Recorder recorder(*model, {.operators = true});
  recorder.start();
  losses_of(model->forward(x)).sum().backward();
  const Captured captured = recorder.take();
  expect_each(per_sample_gradients(*model, captured, 5), one_by_one(*model, losses_of(model->forward(x))),
              test::kPerSampleTolerance);
}

}  // namespace
}  // namespace dds
