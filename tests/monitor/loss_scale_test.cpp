// The Fisher side of a step is that of the samples' own losses, however these go into the loss that is differentiated.
// Expected rows are gradients of the losses that no operator has reduced, by autograd.
#include <gtest/gtest.h>

#include <dds/monitor.hpp>
#include <functional>
#include <map>

#include "tests/hooks/usages.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace F = torch::nn::functional;

/// A trunk that two heads read.
struct TwoHeads : torch::nn::Module {
  torch::nn::Linear trunk{register_module("trunk", torch::nn::Linear(6, 5))};
  torch::nn::Linear a{register_module("a", torch::nn::Linear(5, 4))};
  torch::nn::Linear b{register_module("b", torch::nn::Linear(5, 4))};
  TwoHeads() {
    torch::manual_seed(3);
    to(torch::kDouble);
  }
};

/// What a pass gives out: by layer.
using Outputs = std::map<std::string, at::Tensor>;

Outputs pass(TwoHeads& net, const at::Tensor& x) {
  Outputs out;
  out["trunk"] = net.trunk(x);
  out["a"] = net.a(torch::tanh(out["trunk"]));
  out["b"] = net.b(torch::tanh(out["trunk"]));
  return out;
}

/// By layer, the signatures of the Fisher side of one step.
std::map<std::string, Signature> read_step(torch::nn::Module& net, Reduction reduction,
                                           const std::function<void()>& train) {
  const auto sink = std::make_shared<log::Memory>();
  Monitor monitor(
      net,
      MonitorOptions().every(1).reduction(reduction).signatures(SignatureOptions().sides({Side::Fisher}).spectra(true)),
      sink);
  {
    auto step = monitor.step();
    train();
  }
  monitor.flush();
  std::map<std::string, Signature> found;
  for (const Signature& signature : sink->signatures) found[signature.layer] = signature;
  return found;
}

/// The rows of a layer: gradients of the sum of the samples' losses at its output.
void expect_rows(const Signature& found, const at::Tensor& each, const at::Tensor& output) {
  const at::Tensor rows = torch::autograd::grad({each.sum()}, {output}, {}, /*retain_graph=*/true)[0];
  const at::Tensor sigma = std::get<1>(torch::linalg_svd(rows.flatten(0, -2), false));
  ASSERT_TRUE(found.sigma_max.has_value()) << found.layer << ": " << to_string(found.status);
  ASSERT_EQ(std::ssize(found.spectrum), sigma.size(0)) << found.layer;
  for (std::size_t i = 0; i < found.spectrum.size(); ++i) {
    EXPECT_NEAR(found.spectrum[i], sigma[static_cast<std::int64_t>(i)].item<double>(), 1e-12 * *found.sigma_max)
        << found.layer << " " << i;
  }
}

void expect_unknown(const Signature& found) {
  EXPECT_TRUE(found.status.has(Status::ReductionUnknown)) << found.layer << ": " << to_string(found.status);
  EXPECT_FALSE(found.sigma_max.has_value()) << found.layer;
}

at::Tensor entropy(const at::Tensor& out, const at::Tensor& y, F::CrossEntropyFuncOptions options = {}) {
  return F::cross_entropy(out, y, options);
}
at::Tensor each_entropy(const at::Tensor& out, const at::Tensor& y, F::CrossEntropyFuncOptions options = {}) {
  return F::cross_entropy(out, y, options.reduction(torch::kNone));
}

const at::TensorOptions kClasses = torch::kLong;

// ---- several losses ----

TEST(LossScale, EachHeadHasItsOwnLoss) {
  TwoHeads net;
  const at::Tensor x = torch::randn({2, 6}, torch::kDouble);
  const at::Tensor whole = torch::tensor({0, 0}, kClasses), half = torch::tensor({0, -100}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);  // both heads run before both losses
    const at::Tensor loss_a = entropy(out["a"], whole), loss_b = entropy(out["b"], half);
    (loss_a + loss_b).backward({}, /*retain_graph=*/true);
  });
  expect_rows(found.at("a"), each_entropy(out["a"], whole), out["a"]);
  expect_rows(found.at("b"), each_entropy(out["b"], half), out["b"]);
  expect_unknown(found.at("trunk"));  // whose losses are means over 2 and over 1
}

TEST(LossScale, ASharedTrunkHasTheSumOfLossesThatCountTheSame) {
  TwoHeads net;
  const at::Tensor x = torch::randn({12, 6}, torch::kDouble);
  at::Tensor y = torch::randint(0, 4, {12}, kClasses), z = torch::randint(0, 4, {12}, kClasses);
  y.slice(0, 0, 9).fill_(-100);
  z.slice(0, 3, 12).fill_(-100);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    (entropy(out["a"], y) + entropy(out["b"], z)).backward({}, true);
  });
  for (const char* layer : {"trunk", "a", "b"}) {
    SCOPED_TRACE(layer);
    EXPECT_EQ(to_string(found.at(layer).status), "ok");
    expect_rows(found.at(layer), each_entropy(out["a"], y) + each_entropy(out["b"], z), out[layer]);
  }
}

TEST(LossScale, EachPassOfASiameseNetworkHasItsOwnLoss) {
  TwoHeads net;
  const at::Tensor x = torch::randn({5, 6}, torch::kDouble), y = torch::randint(0, 4, {5}, kClasses);
  const at::Tensor u = torch::randn({3, 6}, torch::kDouble), v = torch::randint(0, 4, {3}, kClasses);
  Outputs first, second;
  const auto found = read_step(net, Reduction::Mean, [&] {
    first = pass(net, x);
    second = pass(net, u);
    (entropy(first["a"], y) + entropy(second["a"], v)).backward({}, true);
  });
  for (const char* layer : {"trunk", "a"}) {
    const at::Tensor rows =
        torch::cat({torch::autograd::grad({each_entropy(first["a"], y).sum()}, {first[layer]}, {}, true)[0],
                    torch::autograd::grad({each_entropy(second["a"], v).sum()}, {second[layer]}, {}, true)[0]});
    const double sigma = torch::linalg_svdvals(rows)[0].item<double>();
    ASSERT_TRUE(found.at(layer).sigma_max.has_value()) << to_string(found.at(layer).status);
    EXPECT_NEAR(*found.at(layer).sigma_max, sigma, 1e-12 * sigma) << layer;
  }
}

TEST(LossScale, ALossThatIsOnlyLookedAtCountsNothing) {
  TwoHeads net;
  const at::Tensor x = torch::randn({7, 6}, torch::kDouble), y = torch::randint(0, 4, {7}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    F::mse_loss(out["a"], torch::zeros_like(out["a"]));
    F::mse_loss(out["a"], torch::zeros_like(out["a"]), F::MSELossFuncOptions().reduction(torch::kSum));
    entropy(out["a"], y).backward({}, true);
  });
  for (const char* layer : {"trunk", "a"}) {
    EXPECT_EQ(to_string(found.at(layer).status), "ok");
    expect_rows(found.at(layer), each_entropy(out["a"], y), out[layer]);
  }
}

TEST(LossScale, AHeadWhoseLossNobodyKnowsIsUnknownBesideOneWhoseLossIsKnown) {
  TwoHeads net;
  const at::Tensor x = torch::randn({7, 6}, torch::kDouble), y = torch::randint(0, 4, {7}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    (entropy(out["a"], y) + out["b"].pow(2).mean()).backward({}, true);
  });
  expect_unknown(found.at("b"));
  expect_rows(found.at("a"), each_entropy(out["a"], y), out["a"]);
}

// ---- what a mean divides by ----

TEST(LossScale, ClassWeightsDivideByTheirSum) {
  TwoHeads net;
  const at::Tensor x = torch::randn({7, 6}, torch::kDouble), w = torch::tensor({0.5, 1.0, 2.0, 4.0}, torch::kDouble);
  at::Tensor y = torch::tensor({0, 1, 2, 3, 3, -100, 1}, kClasses);
  const at::Tensor p = torch::softmax(torch::randn({7, 4}, torch::kDouble), 1);
  Outputs out;
  const auto check = [&](const std::function<at::Tensor(F::CrossEntropyFuncOptions)>& loss) {
    const auto found = read_step(net, Reduction::Mean, [&] {
      out = pass(net, x);
      loss(F::CrossEntropyFuncOptions().weight(w)).backward({}, true);
    });
    for (const char* layer : {"trunk", "a"}) {
      expect_rows(found.at(layer), loss(F::CrossEntropyFuncOptions().weight(w).reduction(torch::kNone)), out[layer]);
    }
  };
  check([&](auto options) { return F::cross_entropy(out["a"], y, options); });
  check([&](auto options) { return F::cross_entropy(out["a"], y, options.label_smoothing(0.1)); });
  check([&](auto options) { return F::cross_entropy(out["a"], p, options); });
  check([&](auto options) {
    const bool none = torch::enumtype::reduction_get_enum(options.reduction()) == torch::Reduction::None;
    auto of_nll = F::NLLLossFuncOptions().weight(w);
    if (none) of_nll.reduction(torch::kNone);
    return F::nll_loss(torch::log_softmax(out["a"], 1), y, of_nll);
  });
}

/// A loss operator, called with tensors of other sizes, which it broadcasts.
struct Broadcasting {
  const char* name;
  std::function<at::Tensor(const at::Tensor& out, const at::Tensor& y, std::int64_t reduction)> loss;
};
void PrintTo(const Broadcasting& loss, std::ostream* os) { *os << loss.name; }

class LossScaleOf : public testing::TestWithParam<Broadcasting> {};

TEST_P(LossScaleOf, BroadcastingCountsAllTerms) {
  torch::manual_seed(5);
  torch::nn::Linear net(3, 1);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({8, 3}, torch::kDouble), y = torch::rand({8}, torch::kDouble).add(0.1);
  at::Tensor out;
  const auto found = read_step(*net, Reduction::Mean, [&] {
    out = net(x);  // (8, 1) against (8): to (8, 8)
    GetParam().loss(out, y, at::Reduction::Mean).backward({}, true);
  });
  expect_rows(found.at("(root)"), GetParam().loss(out, y, at::Reduction::None), out);
}

INSTANTIATE_TEST_SUITE_P(
    Losses, LossScaleOf,
    testing::Values(
        Broadcasting{"L1", [](auto& out, auto& y, auto by) { return at::l1_loss(out, y, by); }},
        Broadcasting{"Mse", [](auto& out, auto& y, auto by) { return at::mse_loss(out, y, by); }},
        Broadcasting{"SmoothL1", [](auto& out, auto& y, auto by) { return at::smooth_l1_loss(out, y, by, 0.3); }},
        Broadcasting{"Huber", [](auto& out, auto& y, auto by) { return at::huber_loss(out, y, by, 0.3); }},
        Broadcasting{"KlDiv", [](auto& out, auto& y, auto by) { return at::kl_div(out, y, by); }},
        Broadcasting{"PoissonNll",
                     [](auto& out, auto& y, auto by) { return at::poisson_nll_loss(out, y, true, false, 1e-8, by); }}),
    [](const auto& info) { return std::string(info.param.name); });

// ---- factors between the loss and the backward pass ----

struct Factored {
  const char* name;
  std::function<at::Tensor(const at::Tensor& loss)> factor;
};
void PrintTo(const Factored& factor, std::ostream* os) { *os << factor.name; }

class LossScaleWith : public testing::TestWithParam<std::tuple<Factored, bool>> {};

TEST_P(LossScaleWith, TheFactorUndone) {
  const auto& [factored, mean] = GetParam();
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  const auto options = mean ? F::CrossEntropyFuncOptions() : F::CrossEntropyFuncOptions().reduction(torch::kSum);
  Outputs out;
  const auto found = read_step(net, mean ? Reduction::Mean : Reduction::Sum, [&, &factor = factored.factor] {
    out = pass(net, x);
    factor(entropy(out["a"], y, options)).backward({}, true);
  });
  for (const char* layer : {"trunk", "a"}) {
    EXPECT_EQ(to_string(found.at(layer).status), "ok");
    expect_rows(found.at(layer), each_entropy(out["a"], y), out[layer]);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Factors, LossScaleWith,
    testing::Combine(testing::Values(Factored{"None", [](const at::Tensor& loss) { return loss; }},
                                     Factored{"Accumulation", [](const at::Tensor& loss) { return loss / 4; }},
                                     Factored{"InPlace", [](at::Tensor loss) { return loss.div_(3); }},
                                     Factored{"Negative", [](const at::Tensor& loss) { return -2 * loss; }},
                                     Factored{"Scaler",
                                              [](const at::Tensor& loss) {
                                                return loss * torch::full({}, 65536, torch::kDouble);
                                              }},
                                     Factored{"Stacked",
                                              [](const at::Tensor& loss) {
                                                return torch::stack({loss, torch::ones_like(loss)}).mean();
                                              }}),
                     testing::Bool()),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) + (std::get<1>(info.param) ? "Mean" : "Sum");
    });

TEST(LossScale, AMeanOverHeadsIsUndone) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    torch::stack({entropy(out["a"], y), entropy(out["b"], y)}).mean().backward({}, true);
  });
  for (const char* layer : {"trunk", "a", "b"}) {
    EXPECT_EQ(to_string(found.at(layer).status), "ok");
    expect_rows(found.at(layer), each_entropy(out["a"], y) + each_entropy(out["b"], y), out[layer]);
  }
}

TEST(LossScale, WeightsBesideAWholeLossAreTheSamplesOwn) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  Outputs out;
  const auto train = [&](double of_a, double of_b) {
    return read_step(net, Reduction::Mean, [&] {
      out = pass(net, x);
      (of_a * entropy(out["a"], y) + of_b * entropy(out["b"], y)).backward({}, true);
    });
  };
  auto found = train(1, 0.4);
  expect_rows(found.at("trunk"), each_entropy(out["a"], y) + 0.4 * each_entropy(out["b"], y), out["trunk"]);
  found = train(0.3, 0.7);  // of which nobody knows what is a weight, and what a factor of the whole
  expect_unknown(found.at("trunk"));
  expect_rows(found.at("a"), each_entropy(out["a"], y), out["a"]);
  expect_rows(found.at("b"), each_entropy(out["b"], y), out["b"]);
  found = train(0.25, 0);
  expect_rows(found.at("trunk"), each_entropy(out["a"], y), out["trunk"]);
}

TEST(LossScale, TermsThatNobodyReducedHaveAFactorToo) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  const at::Tensor w = torch::linspace(0.5, 2, 6, torch::kDouble);
  const at::Tensor mask = torch::tensor({1, 0, 1, 1, 0, 1}, torch::kDouble);
  Outputs out;
  const auto train = [&](Reduction reduction, const std::function<at::Tensor(const at::Tensor& each)>& reduce) {
    return read_step(net, reduction, [&] {
      out = pass(net, x);
      reduce(each_entropy(out["a"], y)).backward({}, true);
    });
  };
  for (const Reduction::Kind reduction : {Reduction::Sum, Reduction::Mean}) {
    auto found = train(reduction, [](const at::Tensor& each) { return each.mean(); });
    expect_rows(found.at("a"), each_entropy(out["a"], y), out["a"]);
    found = train(reduction, [&](const at::Tensor& each) { return (each * mask).sum() / 8; });
    expect_rows(found.at("a"), each_entropy(out["a"], y) * mask, out["a"]);
    found = train(reduction, [&](const at::Tensor& each) { return (each * w).sum(); });
    if (reduction == Reduction::Mean) {
      expect_unknown(found.at("a"));
    } else {
      expect_rows(found.at("a"), each_entropy(out["a"], y) * w, out["a"]);
    }
  }
}

TEST(LossScale, AMeanOverTheBatchAloneIsUndone) {
  torch::manual_seed(5);
  torch::nn::Linear net(3, 4);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({8, 3}, torch::kDouble), y = torch::rand({8, 4}, torch::kDouble).add(0.1);
  at::Tensor out;
  const auto found = read_step(*net, Reduction::Mean, [&] {
    out = net(x);
    F::kl_div(out, y, F::KLDivFuncOptions(torch::kBatchMean)).backward({}, true);
  });
  expect_rows(found.at("(root)"), at::kl_div(out, y, at::Reduction::None), out);
}

// ---- passes within passes ----

TEST(LossScale, ACheckpointsLayersHaveTheLossThatComesAfterIt) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  const auto train = [&](bool checkpointed) {
    return read_step(net, Reduction::Mean, [&] {
      test::usages::Checkpoint::body = [a = net.a](const at::Tensor& h) mutable { return a(h).tanh(); };
      const at::Tensor h = net.trunk(x);
      const at::Tensor out = checkpointed ? test::usages::Checkpoint::apply(h) : test::usages::Checkpoint::body(h);
      (entropy(out, y) / 2).backward();
    });
  };
  const auto expected = train(false), found = train(true);
  for (const char* layer : {"trunk", "a"}) {
    EXPECT_EQ(to_string(found.at(layer).status), "ok") << layer;
    EXPECT_EQ(found.at(layer).reduction, "mean:6");
    ASSERT_TRUE(found.at(layer).sigma_max.has_value());
    EXPECT_NEAR(*found.at(layer).sigma_max, *expected.at(layer).sigma_max, 1e-12);
  }
}

TEST(LossScale, ALossWithinACheckpointIsThatOfWhatRanBefore) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  const auto train = [&](bool checkpointed) {
    return read_step(net, Reduction::Mean, [&] {
      test::usages::Checkpoint::body = [a = net.a, y](const at::Tensor& h) mutable { return entropy(a(h), y); };
      const at::Tensor h = net.trunk(x);
      (checkpointed ? test::usages::Checkpoint::apply(h) : test::usages::Checkpoint::body(h)).backward();
    });
  };
  const auto expected = train(false), found = train(true);
  for (const char* layer : {"trunk", "a"}) {
    EXPECT_EQ(to_string(found.at(layer).status), "ok") << layer;
    ASSERT_TRUE(found.at(layer).sigma_max.has_value());
    EXPECT_NEAR(*found.at(layer).sigma_max, *expected.at(layer).sigma_max, 1e-12);
  }
}

TEST(LossScale, TwoPassesThroughOneLossAddAsBefore) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble), y = torch::randint(0, 4, {6}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    const at::Tensor loss = entropy(out["a"], y);
    loss.backward({}, true);
    loss.backward({}, true);
  });
  expect_rows(found.at("a"), 2 * each_entropy(out["a"], y), out["a"]);
}

// ---- passes that do not train ----

/// What runs before the backward pass that trains, at the same weights.
struct Before {
  std::string name;
  std::function<void(TwoHeads&, const at::Tensor& x, const at::Tensor& loss, const Outputs&)> run;
};
void PrintTo(const Before& before, std::ostream* os) { *os << before.name; }

class LossScaleAfter : public testing::TestWithParam<Before> {};

TEST_P(LossScaleAfter, IsThatOfThePassThatTrains) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble).requires_grad_(), y = torch::randint(0, 4, {6}, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    const at::Tensor loss = entropy(out["a"], y);
    GetParam().run(net, x, loss, out);
    loss.backward({}, true);
  });
  for (const char* layer : {"trunk", "a"}) {
    SCOPED_TRACE(layer);
    expect_rows(found.at(layer), each_entropy(out["a"], y), out[layer]);
  }
}

std::vector<at::Tensor> slopes(TwoHeads& net, const at::Tensor& of) {
  return torch::autograd::grad({of}, net.parameters(), {}, true, /*create_graph=*/true, /*allow_unused=*/true);
}

INSTANTIATE_TEST_SUITE_P(
    Passes, LossScaleAfter,
    testing::Values(Before{"TheSlopeAtTheInput", [](TwoHeads&, const at::Tensor& x, const at::Tensor& loss,
                                                    const Outputs&) { torch::autograd::grad({loss}, {x}, {}, true); }},
                    Before{"TheSlopeAtTheLogits",
                           [](TwoHeads&, const at::Tensor&, const at::Tensor& loss, const Outputs& out) {
                             torch::autograd::grad({loss}, {out.at("a")}, {}, true);
                           }},
                    Before{"APassToTheInputAlone",
                           [](TwoHeads&, const at::Tensor& x, const at::Tensor& loss, const Outputs&) {
                             loss.backward({}, true, false, std::vector<at::Tensor>{x});
                           }},
                    Before{"AnotherPassForAnAttack",
                           [](TwoHeads& net, const at::Tensor& x, const at::Tensor&, const Outputs&) {
                             const at::Tensor attacked = x.detach().clone().requires_grad_();
                             const at::Tensor loss = entropy(pass(net, attacked)["a"], torch::ones({6}, kClasses));
                             torch::autograd::grad({loss}, {attacked});
                           }},
                    Before{"AProductWithTheHessian",
                           [](TwoHeads& net, const at::Tensor&, const at::Tensor& loss, const Outputs&) {
                             at::Tensor along = torch::zeros({}, torch::kDouble);
                             for (const at::Tensor& slope : slopes(net, loss)) {
                               if (slope.defined()) along = along + slope.sum();
                             }
                             slopes(net, along);
                           }}),
    [](const auto& info) { return info.param.name; });

TEST(LossScale, APenaltyOnTheSlopeIsPartOfTheLoss) {
  TwoHeads net;
  const at::Tensor x = torch::randn({6, 6}, torch::kDouble).requires_grad_(), y = torch::randint(0, 4, {6}, kClasses);
  Outputs out;
  const auto penalty = [&] {
    return torch::autograd::grad({each_entropy(out["a"], y).sum()}, {x}, {}, true, true)[0].square().sum(1);
  };
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    (entropy(out["a"], y) + penalty().mean()).backward({}, true);
  });
  expect_rows(found.at("a"), each_entropy(out["a"], y) + penalty(), out["a"]);
}

TEST(LossScale, ALossWhoseTargetsAreAllIgnoredLeavesTheOthers) {
  TwoHeads net;
  const at::Tensor x = torch::randn({5, 6}, torch::kDouble), y = torch::randint(0, 4, {5}, kClasses);
  const at::Tensor none = torch::full({5}, -100, kClasses);
  Outputs out;
  const auto found = read_step(net, Reduction::Mean, [&] {
    out = pass(net, x);
    (entropy(out["a"], y) + entropy(out["b"], none).nan_to_num(0)).backward({}, true);
  });
  expect_rows(found.at("trunk"), each_entropy(out["a"], y), out["trunk"]);
}

}  // namespace
}  // namespace dds
