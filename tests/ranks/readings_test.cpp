// Readings of several ranks against that of one process on the same rows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <dds/llc.hpp>
#include <dds/monitor.hpp>
#include <dds/read.hpp>
#include <limits>
#include <map>

#include "tests/ranks/thread_ranks.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::on_ranks;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int64_t kSamples =
    61;  // no multiple of anything, and for five ranks fewer each than the layers are wide

struct Network : torch::nn::Cloneable<Network> {
  Network() { reset(); }
  void reset() override {
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 3)));
    fc1 = register_module("fc1", torch::nn::Linear(16, 14));
    fc2 = register_module("fc2", torch::nn::Linear(14, 3));
  }
  at::Tensor forward(const at::Tensor& x) { return fc2(torch::relu(fc1(torch::tanh(conv(x)).mean(1).flatten(1)))); }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
};

/// The same on every rank and for every call: copied, since what a constructor draws from the default generator depends
/// on what other ranks do with it meanwhile.
std::shared_ptr<Network> network() {
  static const Network original = [] {
    torch::manual_seed(3);
    Network made;
    made.to(torch::kDouble);
    return made;
  }();
  auto result = std::make_shared<Network>();
  result->to(torch::kDouble);
  const torch::NoGradGuard no_grad;
  const auto from = original.parameters(), into = result->parameters();
  for (std::size_t i = 0; i < from.size(); ++i) into[i].copy_(from[i]);
  return result;
}

Data data() {
  const at::Generator generator = at::detail::createCPUGenerator(4);
  return Data(torch::randn({kSamples, 1, 6, 6}, generator, torch::kDouble), torch::randint(3, {kSamples}, generator));
}

/// Parts of different sizes, of which every sample is in one.
Data part(const Data& all, const Ranks& ranks) {
  const auto cut = [&](int rank) {
    return rank == ranks.size() ? kSamples : kSamples * rank * (rank + 1) / (ranks.size() * (ranks.size() + 1));
  };
  return all.slice(cut(ranks.rank()), cut(ranks.rank() + 1));
}

void expect_same(const std::vector<Signature>& merged, const std::vector<Signature>& single) {
  ASSERT_EQ(merged.size(), single.size());
  for (std::size_t i = 0; i < single.size(); ++i) {
    const Signature &a = merged[i], &b = single[i];
    SCOPED_TRACE(to_string(series_of(b)));
    EXPECT_EQ(series_of(a), series_of(b));
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.kind, b.kind);
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.width, b.width);
    EXPECT_EQ(a.rank, b.rank);
    EXPECT_EQ(a.structural_bound, b.structural_bound);
    EXPECT_EQ(a.reduction, b.reduction);
    EXPECT_EQ(a.row_mode, b.row_mode);
    EXPECT_EQ(a.dtype, b.dtype);
    EXPECT_EQ(to_string(a.status), to_string(b.status));
    ASSERT_TRUE(b.sigma_max && a.sigma_max);
    EXPECT_NEAR(*a.floor, *b.floor, 1e-3 * *b.floor) << "its bound on what cancels is taken over each part";
    ASSERT_EQ(a.spectrum.size(), b.spectrum.size());
    for (std::size_t k = 0; k < b.spectrum.size(); ++k) {
      EXPECT_NEAR(a.spectrum[k], b.spectrum[k], 1e-13 * *b.sigma_max) << k;
    }
  }
}

const ReadingOptions kAllSides = ReadingOptions().sides({Side::Activation, Side::Input, Side::Fisher}).spectra(true);

class Merged : public testing::TestWithParam<int> {};

TEST_P(Merged, ReadsAreThoseOfOneProcess) {
  for (const Fisher fisher : {Fisher::True, Fisher::Empirical}) {
    const ReadOptions options = ReadOptions().reading(kAllSides).fisher(fisher).batch_size(16);
    const std::vector<Signature> single = read(*network(), categorical(), data(), options);
    std::vector<Signature> merged;
    const auto thrown = on_ranks(GetParam(), [&](const RanksPtr& ranks) {
      ReadOptions own = options;
      own.reading().ranks(ranks);
      const auto signatures = read(*network(), categorical(), part(data(), *ranks), own);
      if (ranks->rank() == 0) {
        merged = signatures;
      } else if (!signatures.empty()) {
        throw std::logic_error("signatures on another rank than the first");
      }
    });
    EXPECT_THAT(thrown, Each(IsEmpty()));
    expect_same(merged, single);
  }
}

/// Three steps of full-batch descent, each read; the gradient of the mean over all samples, whoever has them.
std::vector<Signature> trained(const RanksPtr& ranks, Worker worker, std::int64_t window) {
  const auto model = network();
  const auto sink = std::make_shared<log::Memory>();
  const Data all = data(), own = ranks ? part(all, *ranks) : all;
  Monitor monitor(
      *model, MonitorOptions().every(1).worker(worker).window(window).reading(ReadingOptions(kAllSides).ranks(ranks)),
      ranks && ranks->rank() != 0 ? nullptr : sink);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  for (int i = 0; i < 3; ++i) {
    {
      auto step = monitor.step();
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
    }
    // What an all-reduce would have given.
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(model->forward(all.inputs[0]), all.targets).backward();
    optimizer.step();
  }
  monitor.flush();
  return sink->signatures;
}

TEST_P(Merged, StepsAreThoseOfOneProcess) {
  for (const Worker worker : {Worker::Off, Worker::Wait}) {
    for (const std::int64_t window : {1, 2}) {
      std::vector<Signature> merged;
      const auto thrown = on_ranks(GetParam(), [&](const RanksPtr& ranks) {
        const auto signatures = trained(ranks, worker, window);
        if (ranks->rank() == 0) merged = signatures;
      });
      EXPECT_THAT(thrown, Each(IsEmpty()));
      expect_same(merged, trained(nullptr, worker, window));
    }
  }
}

LlcEstimate estimated(const RanksPtr& ranks, Sampler sampler) {
  const LlcOptions options = LlcOptions()
                                 .sampler(sampler)
                                 .batch_size(sampler == Sampler::Sgld ? 16 : 0)
                                 .chains(3)
                                 .threads(1)
                                 .burn_in(20)
                                 .draws(60)
                                 .localization(5)
                                 .keep_trace(true)
                                 .keep_weights(4)
                                 .ranks(ranks);
  return estimate_llc(*network(), categorical(), data(), options);
}

TEST_P(Merged, ChainsOverRanksGiveTheEstimateOfOneProcess) {
  for (const Sampler sampler : {Sampler::Mala, Sampler::Sgld, Sampler::RmspropSgld, Sampler::AveragedNoise}) {
    const LlcEstimate single = estimated(nullptr, sampler);
    LlcEstimate spread;
    const auto thrown = on_ranks(GetParam(), [&](const RanksPtr& ranks) {
      const LlcEstimate estimate = estimated(ranks, sampler);
      if (ranks->rank() == 0) {
        spread = estimate;
      } else if (estimate.lambda || estimate.converged()) {
        throw std::logic_error("an estimate on another rank than the first");
      }
    });
    EXPECT_THAT(thrown, Each(IsEmpty()));
    ASSERT_TRUE(single.lambda && spread.lambda);
    EXPECT_EQ(*spread.lambda, *single.lambda);
    EXPECT_EQ(spread.trace, single.trace);
    EXPECT_TRUE(torch::equal(spread.weights, single.weights));
    EXPECT_EQ(spread.verdict(), single.verdict());
    EXPECT_EQ(spread.gradients, single.gradients);
    EXPECT_EQ(spread.functional_variance, single.functional_variance);
    EXPECT_EQ(spread.acceptance, single.acceptance);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Merged, testing::Values(1, 2, 3, 5));

// ---- what goes wrong ----

TEST(RanksFail, ReadThrowsOnAllWhereOneThrows) {
  for (int failing = 0; failing < 4; ++failing) {
    const auto thrown = on_ranks(4, [&](const RanksPtr& ranks) {
      const Forward forward = [&](torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
        if (ranks->rank() == failing) throw std::runtime_error("disk gone");
        return dynamic_cast<Network&>(model).forward(inputs[0]);
      };
      read(*network(), categorical(), part(data(), *ranks), forward,
           ReadOptions().reading(ReadingOptions().ranks(ranks)));
    });
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(thrown[static_cast<std::size_t>(rank)],
                rank == failing ? "disk gone" : "read: rank " + std::to_string(failing) + " of 4: disk gone");
    }
  }
}

TEST(RanksFail, ReadRefusesDifferentFishers) {
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    read(*network(), categorical(), part(data(), *ranks),
         ReadOptions()
             .reading(ReadingOptions().ranks(ranks))
             .fisher(ranks->rank() == 2 ? Fisher::Empirical : Fisher::True));
  });
  EXPECT_THAT(thrown, Each(HasSubstr("read the Fisher side empirical in 1 passes, another one exact in 3")));
}

TEST(RanksFail, WhatIsWrongWithTheRowsOfOneRankIsSeen) {
  const auto sink = std::make_shared<log::Memory>();
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const auto model = network();
    if (ranks->rank() == 2) {  // a wider head, which no two ranks should differ in
      torch::nn::Linear wider(14, 5);
      wider->to(torch::kDouble);
      model->fc2 = model->replace_module("fc2", wider);
    }
    Monitor monitor(*model, MonitorOptions().every(1).reading(ReadingOptions().sides({Side::Activation}).ranks(ranks)),
                    sink);
    Data own = part(data(), *ranks);
    for (int i = 0; i < 2; ++i) {
      if (ranks->rank() == 1 && i == 1) own.inputs[0][0][0][0][0] = std::numeric_limits<double>::quiet_NaN();
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  std::map<std::pair<std::int64_t, std::string>, std::string> status;
  for (const Signature& s : sink->signatures) {
    status[{s.step, s.layer}] = to_string(s.status);
    EXPECT_EQ(s.sigma_max.has_value(), s.status.empty());
  }
  using Key = std::pair<std::int64_t, std::string>;
  EXPECT_EQ(status, (std::map<Key, std::string>{{{0, "conv"}, "ok"},
                                                {{0, "fc1"}, "ok"},
                                                {{0, "fc2"}, "shape_changed"},
                                                {{1, "conv"}, "non_finite"},
                                                {{1, "fc1"}, "non_finite"},
                                                {{1, "fc2"}, "shape_changed"}}));
}

TEST(RanksFail, ALostRankEndsTheReadingsAndNothingElse) {
  const auto sink = std::make_shared<log::Memory>();
  std::vector<std::int64_t> steps(3);
  std::vector<int> errors(3);
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const auto self = static_cast<std::size_t>(ranks->rank());
    const auto model = network();
    const Data own = part(data(), *ranks);
    Monitor monitor(
        *model, MonitorOptions().every(1).reading(ReadingOptions().ranks(ranks)).on_error([&](const std::exception&) {
          ++errors[self];
        }),
        sink);
    for (int i = 0; i < 6; ++i) {
      if (ranks->rank() == 2 && i == 3) return;
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      step.finish();
      steps[self] = monitor.steps();
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_EQ(steps, (std::vector<std::int64_t>{6, 6, 3}));
  EXPECT_EQ(errors[0], 1) << "told once";
  std::map<std::int64_t, int> rows;
  for (const Signature& signature : sink->signatures) {
    EXPECT_EQ(signature.rows % kSamples, 0) << "of all ranks";
    ++rows[signature.step];
  }
  EXPECT_EQ(rows, (std::map<std::int64_t, int>{{0, 6}, {1, 6}, {2, 6}})) << "three layers, two sides";
  EXPECT_THAT(sink->description["lost_rank"], HasSubstr("step 3 and those after it are not read: rank 0 of 3"));
}

/// Rank 3 of 4 is rank 2's to hear of, and rank 1 has nothing to do with it.
class LostLeaf : public testing::TestWithParam<Worker> {};

TEST_P(LostLeaf, EndsTheReadingsOfAllAboveAtOnce) {
  const auto sink = std::make_shared<log::Memory>();
  std::vector<std::vector<std::string>> errors(4), reads(4);
  std::vector<std::int64_t> steps(4);
  const auto thrown = on_ranks(4, [&](const RanksPtr& ranks) {
    const auto self = static_cast<std::size_t>(ranks->rank());
    const auto model = network();
    const Data own = part(data(), *ranks);
    Monitor monitor(*model,
                    MonitorOptions()
                        .every(1)
                        .worker(GetParam())
                        .reading(ReadingOptions().ranks(ranks))
                        .on_error([&](const std::exception& error) { errors[self].emplace_back(error.what()); }),
                    sink);
    for (int i = 0; i < 8; ++i) {
      if (ranks->rank() == 3 && i == 3) return monitor.flush();
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      step.finish();
      steps[self] = monitor.steps();
    }
    for (int i = 0; i < 2; ++i) {
      try {
        monitor.read(categorical(), own, forward_of<Network>());
      } catch (const RankError& error) {
        reads[self].emplace_back(error.what());
      }
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_EQ(steps, (std::vector<std::int64_t>{8, 8, 8, 3}));
  constexpr const char* kLoss = "rank 2 of 4 could not receive from rank 3: connection closed by peer";
  const auto told_once =
      testing::ElementsAre(HasSubstr(std::string("step 3 and those after it are not read: ") + kLoss));
  EXPECT_THAT(errors[0], told_once);
  EXPECT_THAT(errors[1], IsEmpty());
  EXPECT_THAT(errors[2], told_once);
  for (const std::size_t rank : {0, 1, 2}) {
    EXPECT_THAT(reads[rank], testing::SizeIs(2)) << rank;
    EXPECT_THAT(reads[rank], Each(HasSubstr(kLoss))) << rank;
  }
  EXPECT_THAT(sink->description["lost_rank"], HasSubstr(kLoss));
  std::map<std::int64_t, int> rows;
  for (const Signature& signature : sink->signatures) ++rows[signature.step];
  EXPECT_EQ(rows, (std::map<std::int64_t, int>{{0, 6}, {1, 6}, {2, 6}})) << "three layers, two sides";
}

INSTANTIATE_TEST_SUITE_P(Workers, LostLeaf, testing::Values(Worker::Off, Worker::Wait),
                         [](const auto& info) { return info.param == Worker::Off ? "Off" : "Wait"; });

TEST(RanksFail, DifferentStepsAreNoticed) {
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    const auto model = network();
    const Data own = part(data(), *ranks);
    Monitor monitor(*model,
                    MonitorOptions()
                        .due([&](std::int64_t step) { return step == ranks->rank(); })
                        .reading(ReadingOptions().ranks(ranks)),
                    std::make_shared<log::Memory>());
    for (int i = 0; i < 2; ++i) {
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      step.finish();
    }
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 reads step 0 while another one reads step 1"));
}

TEST(RanksFail, SkippingIsRefused) {
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    Monitor(*network(), MonitorOptions().worker(Worker::Skip).reading(ReadingOptions().ranks(ranks)),
            std::make_shared<log::Memory>());
  });
  EXPECT_THAT(thrown, Each(HasSubstr("Worker::Skip with several ranks")));
}

TEST(RanksFail, ChainsNeedTheSameWeightsAndData) {
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const Data all = data();
    estimate_llc(*network(), categorical(), ranks->rank() == 2 ? all.slice(0, 40) : all,
                 LlcOptions().max_gradients(2000).ranks(ranks));
  });
  EXPECT_THAT(thrown[0], HasSubstr("estimate_llc: rank 2: 323 weights, 40 samples"));
  EXPECT_THAT(thrown[1], HasSubstr("estimate_llc: rank 0: estimate_llc: rank 2"));
  EXPECT_THAT(thrown[2], HasSubstr("expected the same weights and data on all ranks"));
}

TEST(RanksFail, ChainsEndOnAllWhereOneThrows) {
  for (int failing = 0; failing < 3; ++failing) {
    const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
      std::atomic<int> calls = 0;
      const Forward forward = [&](torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
        if (ranks->rank() == failing && ++calls > 40) throw std::runtime_error("disk gone");
        return dynamic_cast<Network&>(model).forward(inputs[0]);
      };
      estimate_llc(*network(), categorical(), data(), forward,
                   LlcOptions().max_gradients(2000).threads(1).ranks(ranks));
    });
    EXPECT_THAT(thrown, Each(HasSubstr("disk gone"))) << failing;
  }
}

TEST(RanksFail, ChainsOfARankThatCannotBeginEndTheOthers) {
  for (int failing = 0; failing < 3; ++failing) {
    const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
      Data own = data();
      if (ranks->rank() == failing) own.targets = at::Tensor();
      estimate_llc(*network(), categorical(), own, LlcOptions().max_gradients(2000).ranks(ranks));
    });
    EXPECT_THAT(thrown, Each(HasSubstr("the data has no targets"))) << failing;
  }
}

}  // namespace
}  // namespace dds
