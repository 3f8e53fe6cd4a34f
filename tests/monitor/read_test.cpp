#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/monitor.hpp>
#include <dds/per_sample.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <dds/weight_direction.hpp>
#include <map>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using test::relative_difference;
using testing::HasSubstr;

struct Mlp : torch::nn::Cloneable<Mlp> {
  Mlp(std::int64_t in, std::int64_t hidden, std::int64_t out) : in(in), hidden(hidden), out(out) { reset(); }
  void reset() override {
    first = register_module("first", torch::nn::Linear(in, hidden));
    second = register_module("second", torch::nn::Linear(hidden, out));
  }
  at::Tensor forward(const at::Tensor& x) { return second(first(x).tanh_()); }
  std::int64_t in, hidden, out;
  torch::nn::Linear first{nullptr}, second{nullptr};
};

const Signature& of(const std::vector<Signature>& signatures, const std::string& layer, Side side) {
  for (const Signature& signature : signatures) {
    if (signature.layer == layer && signature.side == side) return signature;
  }
  throw std::runtime_error("no signature of " + layer);
}

/// The true Fisher-Gram at both layers by definition: sum over samples and classes of p g g^T, one backward pass each.
std::map<std::string, at::Tensor> fisher_by_definition(Mlp& net, const at::Tensor& x) {
  std::map<std::string, at::Tensor> gram;
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const at::Tensor s1 = net.first(x.slice(0, i, i + 1)), s2 = net.second(s1.tanh());
    const at::Tensor log_p = torch::log_softmax(s2, 1);
    for (std::int64_t c = 0; c < s2.size(1); ++c) {
      const auto g = torch::autograd::grad({-log_p[0][c]}, {s1, s2}, {}, /*retain_graph=*/true);
      for (const auto& [layer, row] : {std::pair{"first", g[0]}, {"second", g[1]}}) {
        const at::Tensor term = log_p[0][c].exp() * row.t().mm(row) / x.size(0);
        gram[layer] = gram.contains(layer) ? gram[layer] + term : term;
      }
    }
  }
  return gram;
}

TEST(Read, TheExactTrueFisherIsItsExpectation) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  const at::Tensor x = torch::randn({40, 5});
  const auto signatures =
      read({net, categorical(), Data(x)}, ReadOptions().signatures(SignatureOptions().spectra(true)).batch_size(16));
  Mlp exact(5, 4, 3);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& parameter : net.named_parameters())
      exact.named_parameters()[parameter.key()].copy_(parameter.value());
  }
  exact.to(torch::kDouble);
  const auto gram = fisher_by_definition(exact, x.to(torch::kDouble));
  for (const std::string layer : {"first", "second"}) {
    const Signature& s = of(signatures, layer, Side::Fisher);
    EXPECT_EQ(s.fisher_kind, FisherKind::Exact);
    EXPECT_EQ(s.dtype, torch::kDouble);
    EXPECT_EQ(s.rows, 40);
    const at::Tensor lambda = torch::linalg_eigvalsh(gram.at(layer)).flip(0);
    for (std::int64_t k = 0; k < *s.rank; ++k) {
      const double sigma = s.spectrum.at(static_cast<std::size_t>(k));
      EXPECT_NEAR(sigma * sigma / 40, lambda[k].item<double>(), 1e-12 * lambda[0].item<double>()) << layer << " " << k;
    }
  }
  // A softmax's gradient sums to zero: two positive eigenvalues of three, and the shapes say so.
  EXPECT_EQ(of(signatures, "second", Side::Fisher).rank, 2);
  EXPECT_EQ(of(signatures, "second", Side::Fisher).structural_bound, 2);
  EXPECT_EQ(of(signatures, "second", Side::Fisher).dead_directions, 0);
}

TEST(Read, ANaNOfTheProbeIsNotTheNetworksFault) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  const at::Tensor x = torch::randn({20, 5}), y = torch::randn({20, 3});
  const auto options = ReadOptions().batch_size(8);
  for (const bool fp64 : {true, false}) {
    at::Tensor wrong = x.clone();
    wrong[11][2] = NAN;
    EXPECT_THAT(message_of([&] {
                  read({net, gaussian(), wrong}, ReadOptions(options).fp64(fp64));
                }),
                HasSubstr("read: inputs[0][11, 2] is nan, expected a finite number"));
    wrong[11][2] = INFINITY;
    EXPECT_THAT(message_of([&] {
                  read({net, gaussian(), wrong}, ReadOptions(options).fp64(fp64));
                }),
                HasSubstr("read: inputs[0][11, 2] is inf, expected a finite number"));
  }
  at::Tensor targets = y.clone();
  targets[3][1] = NAN;
  const auto empirical = ReadOptions(options).fisher(Fisher::Empirical);
  EXPECT_THAT(message_of([&] {
                read({net, gaussian(), Data(x, targets)}, empirical);
              }),
              HasSubstr("read: targets[3, 1] is nan"));
  EXPECT_THAT(message_of([&] {
                read({net, gaussian(), Data(x, targets)}, options);
              }),
              HasSubstr("gaussian: a target is nan, expected a finite number"))
      << "though the true Fisher does not use them";
  // What the network or its likelihood drops does no harm.
  const Forward masked = [](torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
    return dynamic_cast<Mlp&>(model).forward(inputs[0].nan_to_num(0.0));
  };
  at::Tensor marked = x.clone();
  marked[11][2] = NAN;
  EXPECT_EQ(to_string(of(read({net, gaussian(), marked, masked}, options), "first", Side::Fisher).status), "ok");
  // A broken network is called so, whatever the probe.
  {
    const torch::NoGradGuard no_grad;
    net.first->weight[0][0] = NAN;
  }
  for (const at::Tensor& probe : {x, marked})
    EXPECT_TRUE(of(read({net, gaussian(), probe}, options), "second", Side::Activation).status.has(Status::NonFinite));
}

TEST(Read, LabelsOutOfRangeAreNamedThoughTheTrueFisherDoesNotUseThem) {
  Mlp net(5, 4, 3);
  const at::Tensor x = torch::randn({20, 5});
  at::Tensor y = torch::zeros({20}, torch::kLong), p = torch::rand({20, 3});
  y[17] = 3;  // counted from 1
  p[4][1] = 255;
  EXPECT_THAT(message_of([&] {
                read({net, categorical(), Data(x, y)}, ReadOptions().batch_size(8));
              }),
              HasSubstr("categorical: a target is 3, expected 0 to 2"));
  EXPECT_THAT(message_of([&] { read({net, bernoulli(), Data(x, p)}); }), HasSubstr("bernoulli: a target is 255"));
  y[17] = -100;
  EXPECT_EQ(read({net, categorical(), Data(x, y)}).size(), 4u) << "an ignored one";
}

TEST(Read, TargetsThatDoNotFitAreNamedThoughTheTrueFisherDoesNotUseThem) {
  Mlp net(5, 4, 3);
  const at::Tensor x = torch::randn({20, 5}), y = torch::zeros({20}, torch::kLong), f = torch::randn({20, 3});
  at::Tensor missing = f.clone();
  missing[7][2] = NAN;
  struct Wrong {
    LikelihoodPtr likelihood;
    at::Tensor targets;
    const char* says;
  };
  for (const auto& [likelihood, targets, says] :
       {Wrong{categorical(), y.to(torch::kDouble), "categorical: target is Double [20], expected Long: classes"},
        Wrong{categorical(), y.unsqueeze(1), "categorical: target is Long [20, 1], expected [20]"},
        Wrong{categorical(), f, "categorical: target is Double [20, 3], expected [20]"},
        Wrong{bernoulli(), y, "bernoulli: target is Long [20], expected [20, 3]"},
        Wrong{bernoulli(), missing, "nan, expected at least 0 and at most 1"},
        Wrong{gaussian(), y, "gaussian: target is Long [20], expected [20, 3]"},
        Wrong{gaussian(), f.narrow(1, 0, 1), "gaussian: target is Double [20, 1], expected [20, 3]"},
        Wrong{gaussian(), missing, "gaussian: a target is nan, expected a finite number"}}) {
    const Problem problem(net, likelihood, Data(x, targets));
    EXPECT_THAT(message_of([&] { read(problem); }), HasSubstr(says));
    const auto forward_only = ReadOptions().signatures(SignatureOptions().sides({Side::Activation}));
    EXPECT_EQ(read(problem, forward_only).size(), 2u) << "no Fisher side, no labels";
  }
  EXPECT_EQ(read({net, gaussian(), Data(x, f)}).size(), 4u);
  EXPECT_EQ(read({net, bernoulli(), Data(x, f.sigmoid())}).size(), 4u);
}

/// A likelihood of the user's own, with a check of its own.
class OfWholeNumbers final : public Likelihood {
 public:
  std::string name() const override { return "whole"; }
  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    return (output - target).square().flatten(1).sum(1);
  }
  at::Tensor sample(const at::Tensor& output, at::Generator) const override { return output.round(); }
  void check_targets(const at::Tensor&, const at::Tensor& targets) const override {
    if (!targets.equal(targets.round())) throw InvalidArgument("whole: a target is a fraction");
  }
};

TEST(Read, ALikelihoodOfTheUsersChecksItsTargets) {
  Mlp net(5, 4, 3);
  const at::Tensor x = torch::randn({20, 5}), y = torch::randn({20, 3});
  const auto whole = std::make_shared<OfWholeNumbers>();
  EXPECT_EQ(read({net, whole, Data(x, y.round())}).size(), 4u);
  EXPECT_THAT(message_of([&] { read({net, whole, Data(x, y)}); }), HasSubstr("whole: a target is a fraction"));
}

// What runs a forward of the caller's gives it copies, or the same as it had every time.
TEST(Read, AForwardThatWritesIntoItsInputsChangesNoData) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  net.to(torch::kDouble);
  const at::Tensor x = torch::randn({20, 5}, torch::kDouble), y = torch::randn({20, 3}, torch::kDouble);
  const Forward scales = [](torch::nn::Module& model, const std::vector<at::Tensor>& in) {
    return dynamic_cast<Mlp&>(model).forward(in[0].mul_(0.5));
  };
  const Forward copies = [](torch::nn::Module& model, const std::vector<at::Tensor>& in) {
    return dynamic_cast<Mlp&>(model).forward(in[0].mul(0.5));
  };
  const LikelihoodPtr writes = likelihood("writes", [](const at::Tensor& output, const at::Tensor& targets) {
    return (output - targets.mul_(0.5)).square().sum(1);
  });
  const WeightDirection direction{{"first.weight", torch::ones({4, 5})}};
  const auto llc =
      LlcOptions().threads(1).chains(2).draws(20).burn_in(20).n_beta(10).step_size(1e-3).gamma(1.0).max_seconds(5);
  const auto numbers = [&](const LikelihoodPtr& likelihood, const Forward& forward) {
    const at::Tensor inputs = x.clone(), targets = y.clone();
    const Problem problem(net, likelihood, Data(inputs, targets), forward);
    std::vector<double> result{per_sample_gradients(problem).squared_norms().sum().item<double>()};
    result.push_back(*read(problem, ReadOptions().fisher(Fisher::Empirical))[0].sigma_max);
    for (const std::optional<std::int64_t> batch : {std::optional<std::int64_t>(), std::optional<std::int64_t>(7)})
      result.push_back(estimate_llc(problem, LlcOptions(llc).batch_size(batch)).lambda.value_or(-1));
    if (likelihood->name() != "writes") result.push_back(direction_order(problem, direction).order.value_or(-1));
    EXPECT_TRUE(inputs.equal(x));
    EXPECT_TRUE(targets.equal(y));
    return result;
  };
  EXPECT_EQ(numbers(gaussian(), scales), numbers(gaussian(), copies));
  EXPECT_EQ(numbers(writes, scales), numbers(writes, copies));
  int passes = 0;
  const Forward late = [&](torch::nn::Module& model, const std::vector<at::Tensor>& in) {
    return dynamic_cast<Mlp&>(model).forward(++passes > 3 ? in[0].mul_(1.0) : in[0]);
  };
  EXPECT_THAT(message_of([&] {
                estimate_llc({net, gaussian(), Data(x, y), late}, llc);
              }),
              HasSubstr("wrote into its inputs at some weights and not at the start"));
}

TEST(Read, AnEmptyForwardIsNamed) {
  Mlp net(5, 4, 3);
  const Problem problem(net, gaussian(), Data(torch::randn({20, 5}), torch::randn({20, 3})), Forward());
  const char* const says = "forward is null, expected a function of the model and its inputs";
  EXPECT_THAT(message_of([&] { read(problem); }), HasSubstr(says));
  EXPECT_THAT(message_of([&] { estimate_llc(problem); }), HasSubstr(says));
  EXPECT_THAT(message_of([&] { per_sample_gradients(problem); }), HasSubstr(says));
  EXPECT_THAT(message_of([&] { direction_order(problem, {{"first.weight", torch::ones({4, 5})}}); }), HasSubstr(says));
  EXPECT_THAT(message_of([&] { Monitor(net, MonitorOptions(), std::make_shared<log::Memory>()).read(problem); }),
              HasSubstr(says));
  EXPECT_THAT(message_of([&] { attribute(net, {}); }), HasSubstr("attribute: step is null"));
}

TEST(Read, TheGaussianFisherIsThatOfTheJacobian) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  net.to(torch::kDouble);
  const at::Tensor x = torch::randn({30, 5}, torch::kDouble);
  const double sigma = 0.3;
  const auto signatures =
      read({net, gaussian(sigma), Data(x)}, ReadOptions().signatures(SignatureOptions().spectra(true)));
  // df/ds1 = W2 diag(1 - tanh^2): the rows of all samples, stacked.
  const at::Tensor slope = 1 - net.first(x).tanh().pow(2);
  const at::Tensor rows = (net.second->weight.unsqueeze(0) * slope.unsqueeze(1)).reshape({-1, 4}) / sigma;
  const at::Tensor expected = torch::linalg_svdvals(rows);
  const Signature& s = of(signatures, "first", Side::Fisher);
  EXPECT_EQ(s.fisher_kind, FisherKind::Exact);
  EXPECT_EQ(s.rows, 30);
  ASSERT_EQ(s.spectrum.size(), 4u);
  for (std::int64_t k = 0; k < 4; ++k)
    EXPECT_NEAR(s.spectrum[k], expected[k].item<double>(), 1e-12 * expected[0].item<double>());
}

TEST(Read, DrawnLabelsApproachTheExactExpectation) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  const Data probe(torch::randn({200, 5}));
  const auto exact = read({net, categorical(), probe});
  // The same likelihood without its closed form: labels are drawn.
  const auto drawn_only = likelihood(
      "drawn", [](const at::Tensor& y, const at::Tensor& t) { return categorical()->loss(y, t); },
      [](const at::Tensor& y, at::Generator g) { return categorical()->sample(y, g); });
  const auto drawn =
      read({net, drawn_only, probe}, ReadOptions().draws(50).signatures(SignatureOptions().seed(test::seed(0))));
  const Signature &e = of(exact, "first", Side::Fisher), &d = of(drawn, "first", Side::Fisher);
  EXPECT_EQ(d.fisher_kind, (FisherKind{FisherKind::Sampled, 50}));
  EXPECT_EQ(d.rows, 200 * 50);
  EXPECT_NEAR(*d.log10_trace, *e.log10_trace, 0.02);  // 10,000 draws: about 1 %
  EXPECT_NEAR(*d.log10_lambda_min_plus, *e.log10_lambda_min_plus, 0.05);
}

TEST(Read, TheActivationSideIsTheForwardPassInDouble) {
  torch::manual_seed(test::seed(0));
  Mlp net(6, 4, 3);
  const at::Tensor x = torch::randn({50, 6});
  const auto signatures = read(
      {net, categorical(), Data(x)},
      ReadOptions().batch_size(7).signatures(SignatureOptions().spectra(true).sides({Side::Activation, Side::Input})));
  const auto in_double = [](const at::Tensor& t) { return t.to(torch::kDouble); };
  const at::Tensor rows =
      torch::nn::functional::linear(in_double(x), in_double(net.first->weight), in_double(net.first->bias));
  const at::Tensor expected = torch::linalg_svdvals(rows), input = torch::linalg_svdvals(in_double(x));
  for (std::int64_t k = 0; k < 4; ++k) {
    EXPECT_NEAR(of(signatures, "first", Side::Activation).spectrum.at(k), expected[k].item<double>(),
                1e-13 * expected[0].item<double>());
  }
  for (std::int64_t k = 0; k < 6; ++k) {
    EXPECT_NEAR(of(signatures, "first", Side::Input).spectrum.at(k), input[k].item<double>(),
                1e-13 * input[0].item<double>());
  }
}

TEST(Read, BatchesDoNotMatter) {
  torch::manual_seed(test::seed(0));
  Mlp net(6, 5, 4);
  const Data probe(torch::randn({101, 6}));
  const auto whole = read({net, categorical(), probe}, ReadOptions().batch_size(101));
  for (const std::int64_t batch : {1, 10, 64}) {
    const auto parts = read({net, categorical(), probe}, ReadOptions().batch_size(batch));
    for (std::size_t i = 0; i < whole.size(); ++i) {
      EXPECT_NEAR(*parts[i].sigma_min, *whole[i].sigma_min, 1e-13 * *whole[i].sigma_max);
      EXPECT_NEAR(*parts[i].logdet_plus, *whole[i].logdet_plus, 1e-9);
      EXPECT_EQ(parts[i].rank, whole[i].rank);
    }
  }
}

TEST(Read, PlantedDeadDirectionsAreCounted) {
  torch::manual_seed(test::seed(0));
  Mlp net(6, 8, 4);
  {
    const torch::NoGradGuard no_grad;
    net.first->weight.slice(0, 0, 3).zero_();   // three units that give a constant ...
    net.first->bias.slice(0, 0, 3).zero_();     // ... zero
    net.second->weight.slice(1, 0, 2).zero_();  // two that nobody listens to
  }
  const auto signatures = read({net, categorical(), Data(torch::randn({300, 6}))},
                               ReadOptions().signatures(SignatureOptions().dead_axes(true)));
  const Signature& x = of(signatures, "first", Side::Activation);
  EXPECT_EQ(x.structural_bound, 7);  // six inputs and the bias
  EXPECT_EQ(x.rank, 5);
  EXPECT_EQ(x.dead_directions, 2);
  const Signature& g = of(signatures, "first", Side::Fisher);
  EXPECT_EQ(g.dead_directions, 2);
  ASSERT_EQ(g.dead_axes.size(0), 2);  // the two units without a listener, and nothing else
  EXPECT_NEAR(g.dead_axes.slice(1, 0, 2).pow(2).sum().item<double>(), 2, 1e-12);
  EXPECT_NEAR(g.dead_axes.slice(1, 2, 8).abs().max().item<double>(), 0, 1e-12);
}

TEST(Read, LeavesEverythingAsItWas) {
  torch::manual_seed(test::seed(0));
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::BatchNorm1d(6), torch::nn::Dropout(0.5),
                            torch::nn::Linear(6, 3));
  net->train();
  net->forward(torch::randn({9, 4})).sum().backward();
  net[3]->as<torch::nn::Linear>()->bias.set_requires_grad(false);
  std::vector<at::Tensor> before;
  std::vector<const void*> storages;
  for (const auto& list : {net->parameters(), net->buffers()}) {
    for (const at::Tensor& tensor : list) {
      before.push_back(tensor.detach().clone());
      storages.push_back(tensor.data_ptr());
      if (tensor.grad().defined()) before.push_back(tensor.grad().clone());
    }
  }
  const at::Tensor generator = at::globalContext().defaultGenerator(at::kCPU).get_state();
  read({*net, categorical(), Data(torch::randn({20, 4}, at::detail::createCPUGenerator(1)))});
  EXPECT_TRUE(torch::equal(generator, at::globalContext().defaultGenerator(at::kCPU).get_state()));
  std::size_t place = 0, number = 0;
  for (const auto& list : {net->parameters(), net->buffers()}) {
    for (const at::Tensor& tensor : list) {
      EXPECT_TRUE(torch::equal(tensor, before.at(place++)));
      EXPECT_EQ(tensor.data_ptr(), storages.at(number++));
      if (tensor.grad().defined()) {
        EXPECT_TRUE(torch::equal(tensor.grad(), before.at(place++)));
      }
    }
  }
  EXPECT_TRUE(net->is_training());
  EXPECT_FALSE(net[3]->as<torch::nn::Linear>()->bias.requires_grad());
}

TEST(Read, IsNotSeenByARecorderThatIsUnderWay) {
  Mlp net(4, 3, 2);
  Recorder recorder(net);
  recorder.start();
  net.forward(torch::randn({5, 4})).sum().backward();
  read({net, categorical(), Data(torch::randn({6, 4}))});
  EXPECT_EQ(recorder.take().layers[0].calls.size(), 1u);
}

TEST(Read, AForwardWithATypeOfItsOwnIsReadInTheModels) {
  struct Fixed : torch::nn::Module {
    torch::nn::Linear layer{register_module("layer", torch::nn::Linear(4, 3))};
    at::Tensor mix = torch::eye(4);
    at::Tensor forward(const at::Tensor& x) { return layer(x.mm(mix)); }
  } net;
  const auto signatures = read({net, categorical(), Data(torch::randn({30, 4}))});
  ASSERT_EQ(signatures.size(), 2u);
  for (const Signature& s : signatures) {
    EXPECT_TRUE(s.status.has(Status::Fp64Unavailable)) << to_string(s.status);
    EXPECT_EQ(s.dtype, torch::kFloat);
    EXPECT_TRUE(s.sigma_max.has_value());
  }
}

TEST(Read, NaNAndInfGiveAStatus) {
  Mlp net(4, 3, 2);
  for (const double bad : {NAN, INFINITY}) {
    {
      const torch::NoGradGuard no_grad;
      net.first->bias[1] = bad;
    }
    const auto signatures = read({net, categorical(), Data(torch::randn({30, 4}))});
    const Signature& s = of(signatures, "first", Side::Activation);
    EXPECT_TRUE(s.status.has(Status::NonFinite));
    EXPECT_FALSE(s.sigma_max.has_value());
  }
}

TEST(Read, RowsBeyondTheBudgetAreASeededSubset) {
  torch::manual_seed(test::seed(0));
  Mlp net(4, 3, 2);
  const Data probe(torch::randn({5000, 4}));
  const auto options = [](std::uint64_t seed) {
    return ReadOptions().signatures(SignatureOptions().max_rows(1000).seed(test::seed(seed)));
  };
  const auto a = read({net, categorical(), probe}, options(1)), b = read({net, categorical(), probe}, options(1)),
             c = read({net, categorical(), probe}, options(2)), all = read({net, categorical(), probe});
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].status.has(Status::Subsampled));
    EXPECT_LE(a[i].rows, 1000);
    EXPECT_GE(a[i].rows, 450);  // an exact Fisher over two classes has half of them
    EXPECT_EQ(*a[i].sigma_min, *b[i].sigma_min);
    EXPECT_NE(*a[i].sigma_min, *c[i].sigma_min);
    EXPECT_NEAR(*a[i].log10_lambda_min_plus, *all[i].log10_lambda_min_plus, 0.1);
  }
}

// Of a wide layer as many rows are read as a factor may have columns, and all of a narrow one.
TEST(Read, TakesOfAWideLayerAsManyRowsAsANarrowOneMayHaveColumns) {
  torch::manual_seed(test::seed(17));
  torch::nn::Sequential net(torch::nn::Linear(40, 30), torch::nn::Tanh(), torch::nn::Linear(30, 2));
  const Data probe(torch::randn({100, 40}));
  const auto with = [&](SignatureOptions options) {
    return read({*net, categorical(), probe}, ReadOptions().signatures(options.sides({Side::Activation})));
  };
  const auto signatures = with(SignatureOptions().max_width(20));
  const Signature wide = of(signatures, "0", Side::Activation), narrow = of(signatures, "2", Side::Activation);
  EXPECT_TRUE(wide.status.has(Status::Subsampled));
  EXPECT_EQ(wide.rows, 20);
  EXPECT_EQ(wide.structural_bound, 20);
  EXPECT_EQ(wide.rank, 20);
  EXPECT_TRUE(narrow.status.empty());
  EXPECT_EQ(narrow.rows, 100);
  // Twenty rows are too few to be a subset, however narrow a factor may be.
  const Data few(probe.inputs.front().narrow(0, 0, 20));
  const Signature all = of(read({*net, categorical(), few}), "0", Side::Activation),
                  same =
                      of(read({*net, categorical(), few}, ReadOptions().signatures(SignatureOptions().max_width(20))),
                         "0", Side::Activation);
  EXPECT_TRUE(same.status.empty());
  EXPECT_EQ(same.sigma_min, all.sigma_min);
}

// Two kinds of samples, p = (1/2, 1/2, 0) and (1/2, 0, 1/2), the last two logits far apart. Of each, the classes add
// 1/4 and 1/4 to the trace, so that any rows have the trace of all, if the classes are of the same rows.
TEST(Read, AllClassesOfAnExactFisherAreOfTheSameRows) {
  struct Logits : torch::nn::Module {
    torch::nn::Linear layer{register_module("layer", torch::nn::Linear(torch::nn::LinearOptions(3, 3).bias(false)))};
    at::Tensor forward(const at::Tensor& x) { return layer(x); }
  } net;
  net.layer->weight.set_data(torch::eye(3));
  const at::Tensor kinds = torch::tensor({{0.F, 0.F, -200.F}, {0.F, -200.F, 0.F}});
  const Data probe(kinds.index_select(0, torch::randint(0, 2, {600}, torch::kLong)));
  const auto with = [&](std::int64_t rows) {
    return read({net, categorical(), probe},
                ReadOptions().signatures(SignatureOptions().max_rows(rows)).batch_size(250));
  };
  const Signature part = of(with(90), "layer", Side::Fisher), whole = of(with(100000), "layer", Side::Fisher);
  EXPECT_TRUE(part.status.has(Status::Subsampled));
  ASSERT_TRUE(part.fisher_kind && part.log10_trace && whole.log10_trace);
  EXPECT_EQ(to_string(*part.fisher_kind), "exact");
  EXPECT_NEAR(*part.log10_trace, *whole.log10_trace, 1e-9);
}

// A forward may write into its weights and its inputs.
TEST(Read, PutsBackWhatTheForwardWrites) {
  struct Writing : torch::nn::Module {
    torch::nn::Embedding table{
        register_module("table", torch::nn::Embedding(torch::nn::EmbeddingOptions(5, 4).max_norm(1)))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(4, 3))};
    at::Tensor forward(const at::Tensor& tokens, at::Tensor x) { return head(table(tokens) + x.relu_()); }
  } net;
  torch::manual_seed(0);
  net.table->weight.set_data(torch::randn({5, 4}) * 10);
  for (const at::ScalarType type : {torch::kFloat, torch::kDouble}) {
    net.to(type);
    const at::Tensor before = net.table->weight.detach().clone(), x = torch::randn({20, 4}).to(type);
    const Data probe({torch::randint(0, 5, {20}, torch::kLong), x}, torch::zeros({20}, torch::kLong));
    const at::Tensor input = x.clone();
    const Problem problem(net, categorical(), probe, [](torch::nn::Module& model, const std::vector<at::Tensor>& in) {
      return dynamic_cast<Writing&>(model).forward(in[0], in[1]);
    });
    for (const bool fp64 : {true, false}) read(problem, ReadOptions().fp64(fp64));
    per_sample_gradients(problem);
    EXPECT_TRUE(torch::equal(net.table->weight, before));
    EXPECT_TRUE(torch::equal(x, input));
  }
}

TEST(Read, SaysWhatIsWrong) {
  Mlp net(4, 3, 2);
  const Data probe(torch::randn({30, 4}));
  EXPECT_THAT(message_of([&] { read({net, categorical(), Data(torch::randn({0, 4}))}); }), HasSubstr("0"));
  EXPECT_THAT(message_of([&] { read({net, categorical(), Data()}); }), HasSubstr("input"));
  EXPECT_THAT(message_of([&] { read({net, nullptr, probe}); }), HasSubstr("likelihood"));
  EXPECT_THAT(message_of([&] {
                read({net, categorical(), probe}, ReadOptions().batch_size(0));
              }),
              HasSubstr("batch_size is 0"));
  EXPECT_THAT(message_of([&] {
                read({net, categorical(), probe}, ReadOptions().fisher(Fisher::Empirical));
              }),
              HasSubstr("targets"));
  EXPECT_THAT(message_of([&] {
                read({net, categorical(), probe}, ReadOptions().signatures(SignatureOptions().layers({"third"})));
              }),
              HasSubstr("first, second"));
  torch::nn::Sequential empty{torch::nn::ReLU()};
  EXPECT_THAT(message_of([&] { read({*empty, categorical(), probe}); }), HasSubstr("no parameters"));
  EXPECT_THROW(read({net, categorical(), Data(torch::randn({30, 5}))}),
               c10::Error);  // the forward's own error comes through
}

TEST(Read, SidesThatALayerDoesNotHaveSaySo) {
  torch::nn::Sequential net(torch::nn::Embedding(7, 4), torch::nn::Linear(4, 3));
  const auto signatures = read({*net, categorical(), Data(torch::randint(0, 7, {20}, torch::kLong))},
                               ReadOptions().signatures(SignatureOptions().sides({Side::Activation, Side::Input})));
  EXPECT_EQ(to_string(of(signatures, "0", Side::Input).status), "not_observable");
  EXPECT_EQ(to_string(of(signatures, "0", Side::Activation).status), "ok");
  EXPECT_EQ(to_string(of(signatures, "1", Side::Input).status), "ok");
}

TEST(Read, TheEmpiricalFisherUsesTheDatasLabels) {
  torch::manual_seed(test::seed(0));
  Mlp net(5, 4, 3);
  net.to(torch::kDouble);
  const at::Tensor x = torch::randn({40, 5}, torch::kDouble), y = torch::randint(0, 3, {40}, torch::kLong);
  const auto signatures = read({net, categorical(), Data(x, y)}, ReadOptions().fisher(Fisher::Empirical));
  const at::Tensor delta = torch::softmax(net.forward(x), 1) - torch::one_hot(y, 3);
  const Signature& s = of(signatures, "second", Side::Fisher);
  EXPECT_EQ(s.fisher_kind, FisherKind::Empirical);
  EXPECT_NEAR(*s.sigma_max, torch::linalg_svdvals(delta)[0].item<double>(), 1e-12);
}

}  // namespace
}  // namespace dds
