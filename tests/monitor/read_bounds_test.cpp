// Bounds of a checkpoint read: of all batches and backward passes together.
#include <gtest/gtest.h>

#include <dds/read.hpp>

#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

const Signature& side_of(const std::vector<Signature>& signatures, const std::string& layer, Side side) {
  for (const Signature& s : signatures) {
    if (s.layer == layer && s.side == side) return s;
  }
  throw std::runtime_error("no reading of " + layer);
}

class Network : public torch::nn::Module {
 public:
  torch::nn::Linear first{register_module("first", torch::nn::Linear(12, 40))},
      second{register_module("second", torch::nn::Linear(40, 5))};
  at::Tensor forward(const at::Tensor& x) { return second(torch::tanh(first(x))); }
};

std::vector<Signature> read_of(std::int64_t samples, std::int64_t batch, LikelihoodPtr likelihood) {
  torch::manual_seed(test::seed(0));
  Network net;
  const SignatureOptions sides = SignatureOptions().sides({Side::Activation, Side::Input, Side::Fisher});
  return read({net, std::move(likelihood), Data(torch::randn({samples, 12}))},
              ReadOptions().batch_size(batch).signatures(sides));
}

TEST(ReadBounds, AnExactFisherOfFewSamplesHasClassesLessOneForEach) {
  for (const std::int64_t batch : {1, 2, 512}) {
    const auto signatures = read_of(6, batch, categorical());
    const Signature& fisher = side_of(signatures, "first", Side::Fisher);
    EXPECT_EQ(fisher.structural_bound, 6 * 4) << batch;  // n (C - 1)
    EXPECT_EQ(fisher.rank, 6 * 4) << batch;
    EXPECT_EQ(side_of(signatures, "second", Side::Fisher).structural_bound, 4) << batch;
    EXPECT_EQ(side_of(signatures, "first", Side::Input).structural_bound, 6) << batch;
    for (const Signature& s : signatures) EXPECT_EQ(s.dead_directions, 0) << s.layer << " " << to_string(s.side);
    for (const Signature& s : signatures) EXPECT_EQ(to_string(s.status), "ok") << s.layer << " " << to_string(s.side);
  }
}

TEST(ReadBounds, AGaussianHasOneForEachValue) {
  EXPECT_EQ(side_of(read_of(6, 4, gaussian(1)), "first", Side::Fisher).structural_bound, 6 * 5);
  EXPECT_EQ(side_of(read_of(60, 16, gaussian(1)), "first", Side::Fisher).structural_bound, 40);
}

class Narrow : public torch::nn::Module {
 public:
  torch::nn::Linear only{register_module("only", torch::nn::Linear(torch::nn::LinearOptions(3, 8).bias(false)))};
  at::Tensor forward(const at::Tensor& x) { return only(x); }
};

TEST(ReadBounds, TheFisherSideIsNotWithinTheActivations) {
  torch::manual_seed(test::seed(0));
  Narrow net;
  const at::Tensor x = torch::randn({60, 3});
  for (const Fisher fisher : {Fisher::True, Fisher::Empirical}) {
    const auto expect = [&](LikelihoodPtr likelihood, const at::Tensor& y, std::int64_t rank) {
      const auto signatures = read({net, std::move(likelihood), Data(x, y)}, ReadOptions().fisher(fisher));
      EXPECT_EQ(side_of(signatures, "only", Side::Activation).structural_bound, 3);
      EXPECT_EQ(side_of(signatures, "only", Side::Fisher).structural_bound, rank);
      EXPECT_EQ(side_of(signatures, "only", Side::Fisher).rank, rank);
    };
    expect(gaussian(1), torch::randn({60, 8}), 8);
    expect(bernoulli(), torch::rand({60, 8}), 8);
    expect(categorical(), torch::arange(60).remainder(8), 7);
  }
}

class WithoutARule : public torch::nn::Module {
 public:
  torch::nn::Linear first{register_module("first", torch::nn::Linear(6, 8))},
      second{register_module("second", torch::nn::Linear(8, 10))};
  bool narrow = false;
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor h = first(x);
    if (narrow) h = h * torch::cat({torch::ones({3}, h.options()), torch::zeros({5}, h.options())});
    return second(torch::special::i0(h));
  }
};

TEST(ReadBounds, WhereTheBoundIsNotKnownOnlyARankThatReachesItCounts) {
  torch::manual_seed(test::seed(0));
  WithoutARule net;
  for (const bool narrow : {false, true}) {
    net.narrow = narrow;
    const auto signatures = read({net, gaussian(1), Data(torch::randn({60, 6}))});
    const Signature& s = side_of(signatures, "second", Side::Activation);
    EXPECT_EQ(s.structural_bound, narrow ? std::nullopt : std::optional<std::int64_t>(9));
    EXPECT_EQ(s.dead_directions, narrow ? std::nullopt : std::optional<std::int64_t>(0));
    EXPECT_EQ(s.status.has(Status::BoundUnknown), narrow);
    EXPECT_EQ(s.bound_ended_by, narrow ? "aten::i0" : "");
    EXPECT_TRUE(s.rank && s.sigma_max && s.logdet_plus);
  }
}

}  // namespace
}  // namespace dds
