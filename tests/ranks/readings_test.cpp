// Readings of several ranks against that of one process on the same rows.
#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <dds/llc.hpp>
#include <dds/monitor.hpp>
#include <dds/read.hpp>
#include <limits>
#include <map>

#include "src/ranks/tree.hpp"
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

const SignatureOptions kAllSides =
    SignatureOptions().sides({Side::Activation, Side::Input, Side::Fisher}).spectra(true);

class Merged : public testing::TestWithParam<int> {};

TEST_P(Merged, ReadsAreThoseOfOneProcess) {
  for (const Fisher fisher : {Fisher::True, Fisher::Empirical}) {
    const ReadOptions options = ReadOptions().signatures(kAllSides).fisher(fisher).batch_size(16);
    const std::vector<Signature> single = read({*network(), categorical(), data()}, options);
    std::vector<Signature> merged;
    const auto thrown = on_ranks(GetParam(), [&](const RanksPtr& ranks) {
      ReadOptions own = options;
      own.signatures().ranks(ranks);
      const auto signatures = read({*network(), categorical(), part(data(), *ranks)}, own);
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
      *model,
      MonitorOptions().every(1).worker(worker).window(window).signatures(SignatureOptions(kAllSides).ranks(ranks)),
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
                                 .batch_size(sampler == Sampler::Sgld ? std::optional<std::int64_t>(16) : std::nullopt)
                                 .chains(3)
                                 .threads(1)
                                 .burn_in(20)
                                 .draws(60)
                                 .gamma(5)
                                 .keep_trace(true)
                                 .keep_weights(4)
                                 .ranks(ranks);
  return estimate_llc({*network(), categorical(), data()}, options);
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
    EXPECT_EQ(spread.diagnostics.acceptance, single.diagnostics.acceptance);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Merged, testing::Values(1, 2, 3, 5));

TEST(Merged, ARankWithoutSamplesAddsNothing) {
  const auto step_of = [](const RanksPtr& ranks, std::int64_t samples) {
    const auto model = network();
    const auto sink = std::make_shared<log::Memory>();
    Monitor monitor(*model, MonitorOptions().every(1).signatures(SignatureOptions(kAllSides).ranks(ranks)), sink);
    const Data all = data();
    auto step = monitor.step();
    torch::nn::functional::cross_entropy(model->forward(all.inputs[0].slice(0, 0, samples)),
                                         all.targets.slice(0, 0, samples))
        .backward();
    step.finish();
    return sink->signatures;
  };
  for (const int idle : {0, 1}) {
    std::vector<Signature> merged;
    const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
      const auto signatures = step_of(ranks, ranks->rank() == idle ? 0 : kSamples);
      if (ranks->rank() == 0) merged = signatures;
    });
    EXPECT_THAT(thrown, Each(IsEmpty()));
    expect_same(merged, step_of(nullptr, kSamples));
    for (const Signature& signature : merged) EXPECT_EQ(to_string(signature.status), "ok");
  }
}

// ---- what goes wrong ----

/// The memory of tensors, of which a thread can have none any more.
class Memory final : public c10::Allocator {
 public:
  // NOLINTBEGIN(modernize-use-override)
  static inline thread_local bool exhausted = false;

  Memory() { c10::SetCPUAllocator(this); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { c10::SetCPUAllocator(before_); }

  // Which of these override LibTorch's depends on its version.
  c10::DataPtr allocate(std::size_t size) { return of_size(size); }
  c10::DataPtr allocate(std::size_t size) const { return of_size(size); }
  void copy_data(void* into, const void* from, std::size_t size) const { std::memcpy(into, from, size); }
  // NOLINTEND(modernize-use-override)

 private:
  c10::DataPtr of_size(std::size_t size) const {
    TORCH_CHECK(!exhausted, "no memory");
    return before_->allocate(size);
  }
  c10::Allocator* before_ = c10::GetCPUAllocator();
};

/// Ranks whose messages need no memory of that kind, which `on_receipt` exhausts for what comes after a message.
class Messenger final : public Ranks {
 public:
  explicit Messenger(RanksPtr ranks) : ranks_(std::move(ranks)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  void send(const at::Tensor& bytes, int to) override {
    const bool before = std::exchange(Memory::exhausted, false);
    ranks_->send(bytes, to);
    Memory::exhausted = before;
  }
  void receive(const at::Tensor& bytes, int from) override {
    const bool before = std::exchange(Memory::exhausted, false);
    ranks_->receive(bytes, from);
    Memory::exhausted = before || on_receipt;
  }
  bool on_receipt = false;

 private:
  RanksPtr ranks_;
};

/// Keeps what a rank is told of in its place of `errors`.
auto noted_in(std::vector<std::vector<std::string>>& errors, const Ranks& ranks) {
  return [&own = errors[static_cast<std::size_t>(ranks.rank())]](const std::exception& error) {
    own.emplace_back(error.what());
  };
}

/// Everybody is there, and hears from everybody what was said last: nothing is left over from before.
void expect_nothing_left(const RanksPtr& ranks) {
  Tree tree(*ranks);
  int all = 1;
  const auto pack = [&] {
    Parcel parcel;
    parcel.put(all);
    return parcel;
  };
  tree.reduce(pack, [&](Parcel parcel) { all += parcel.take<int>(); });
  EXPECT_EQ(tree.broadcast(pack()).take<int>(), ranks->size());
}

TEST(RanksFail, ReadThrowsOnAllWhereOneThrows) {
  for (int failing = 0; failing < 4; ++failing) {
    const auto thrown = on_ranks(4, [&](const RanksPtr& ranks) {
      const Forward forward = [&](torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
        if (ranks->rank() == failing) throw std::runtime_error("disk gone");
        return dynamic_cast<Network&>(model).forward(inputs[0]);
      };
      read({*network(), categorical(), part(data(), *ranks), forward},
           ReadOptions().signatures(SignatureOptions().ranks(ranks)));
    });
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(thrown[static_cast<std::size_t>(rank)],
                rank == failing ? "disk gone" : "read: rank " + std::to_string(failing) + " of 4: disk gone");
    }
  }
}

TEST(RanksFail, ReadRefusesDifferentFishers) {
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    read({*network(), categorical(), part(data(), *ranks)},
         ReadOptions()
             .signatures(SignatureOptions().ranks(ranks))
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
    Monitor monitor(
        *model, MonitorOptions().every(1).signatures(SignatureOptions().sides({Side::Activation}).ranks(ranks)), sink);
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
        *model,
        MonitorOptions().every(1).signatures(SignatureOptions().ranks(ranks)).on_error([&](const std::exception&) {
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
    EXPECT_EQ(*signature.rows % kSamples, 0) << "of all ranks";
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
                        .signatures(SignatureOptions().ranks(ranks))
                        .on_error(noted_in(errors, *ranks)),
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
        monitor.read({*model, categorical(), own});
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

TEST(RanksFail, DifferentStepsAreNoticedAndStallNobody) {
  std::vector<std::vector<std::string>> errors(2);
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    const auto model = network();
    const Data own = part(data(), *ranks);
    Monitor monitor(*model,
                    MonitorOptions()
                        .due([&](std::int64_t step) { return step == ranks->rank() || step >= 2; })
                        .signatures(SignatureOptions().ranks(ranks))
                        .on_error(noted_in(errors, *ranks)),
                    std::make_shared<log::Memory>());
    for (int i = 0; i < 5; ++i) {
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      step.finish();
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_THAT(errors[0], testing::ElementsAre(HasSubstr("rank 0 reads step 0 while another one reads step 1")));
  EXPECT_THAT(errors[1], IsEmpty()) << "its sends are taken";
}

/// A rank that cannot capture a step, or join what comes, says so in its place.
class NoMemory : public testing::TestWithParam<std::tuple<Worker, int>> {};

TEST_P(NoMemory, CostsOneReadingOnly) {
  const Worker worker = std::get<0>(GetParam());
  const int poor = std::get<1>(GetParam());
  const Memory memory;
  const auto sink = std::make_shared<log::Memory>();
  std::vector<std::vector<std::string>> errors(3);
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const auto model = network();
    const Data own = part(data(), *ranks);
    const auto messenger = std::make_shared<Messenger>(ranks);
    Monitor monitor(*model,
                    MonitorOptions()
                        .every(1)
                        .worker(worker)
                        .signatures(SignatureOptions().ranks(messenger))
                        .on_error(noted_in(errors, *ranks)),
                    sink);
    for (int i = 0; i < 3; ++i) {
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      Memory::exhausted = i == 1 && ranks->rank() == poor;
      step.finish();
      Memory::exhausted = false;
    }
    monitor.flush();
    expect_nothing_left(ranks);
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  const auto told_once = testing::ElementsAre(HasSubstr("no memory"));
  EXPECT_THAT(errors[0], told_once);
  EXPECT_THAT(errors[static_cast<std::size_t>(poor)], told_once);
  std::map<std::int64_t, int> rows;
  for (const Signature& signature : sink->signatures) {
    EXPECT_EQ(to_string(signature.status), signature.step == 1 ? "capture_failed" : "ok");
    if (signature.step == 1) continue;
    EXPECT_EQ(*signature.rows % kSamples, 0) << "of all ranks";
    ++rows[signature.step];
  }
  EXPECT_EQ(rows, (std::map<std::int64_t, int>{{0, 6}, {2, 6}})) << "three layers, two sides";
}

INSTANTIATE_TEST_SUITE_P(Workers, NoMemory,
                         testing::Combine(testing::Values(Worker::Off, Worker::Wait), testing::Values(0, 1, 2)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param) == Worker::Off ? "Off" : "Wait") + "Rank" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(RanksFail, AMergeThatFailsLeavesNoPartOfAReading) {
  const Memory memory;
  const auto sink = std::make_shared<log::Memory>();
  std::vector<int> errors(3);
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const auto model = network();
    const auto messenger = std::make_shared<Messenger>(ranks);
    const Data own = part(data(), *ranks);
    const auto note = [&](const std::exception&) { ++errors[static_cast<std::size_t>(ranks->rank())]; };
    Monitor monitor(*model, MonitorOptions().every(1).signatures(SignatureOptions().ranks(messenger)).on_error(note),
                    sink);
    for (int i = 0; i < 3; ++i) {
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      messenger->on_receipt = i == 1 && ranks->rank() == 0;
      step.finish();
      Memory::exhausted = false;
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_EQ(errors, (std::vector<int>{1, 0, 0}));
  ASSERT_GE(sink->signatures.size(), 12u) << "of the other steps";
  for (const Signature& signature : sink->signatures) {
    EXPECT_EQ(to_string(signature.status), signature.step == 1 ? "capture_failed" : "ok") << signature.step;
  }
}

TEST(RanksFail, AnErrorThatWaitsEndsTheReadOfAll) {
  const Memory memory;
  std::vector<std::vector<std::string>> reads(3);
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const auto model = network();
    const Data own = part(data(), *ranks);
    Monitor monitor(*model,
                    MonitorOptions().every(1).signatures(SignatureOptions().ranks(std::make_shared<Messenger>(ranks))),
                    std::make_shared<log::Memory>());
    {
      auto step = monitor.step();
      torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
      Memory::exhausted = ranks->rank() == 1;
    }
    Memory::exhausted = false;
    for (int i = 0; i < 2; ++i) {
      std::string& outcome = reads[static_cast<std::size_t>(ranks->rank())].emplace_back();
      try {
        monitor.read({*model, categorical(), own});
      } catch (const std::exception& error) {
        outcome = error.what();
      }
    }
    expect_nothing_left(ranks);
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  for (const auto& outcomes : reads) EXPECT_THAT(outcomes, testing::ElementsAre(HasSubstr("no memory"), IsEmpty()));
}

TEST(RanksFail, ALossBesideAnErrorOfOnesOwnIsInTheLog) {
  const auto sink = std::make_shared<log::Memory>();
  std::vector<std::string> outcomes;
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    if (ranks->rank() == 1) return;
    const auto model = network();
    const Data own = data();
    Monitor monitor(*model, MonitorOptions().every(1).signatures(SignatureOptions().ranks(ranks)), sink);
    const Forward failing = [](torch::nn::Module&, const std::vector<at::Tensor>&) -> at::Tensor {
      throw std::runtime_error("disk gone");
    };
    for (int i = 0; i < 2; ++i) {
      try {
        monitor.read({*model, categorical(), own, failing});
      } catch (const std::exception& error) {
        outcomes.emplace_back(error.what());
      }
    }
    auto step = monitor.step();
    torch::nn::functional::cross_entropy(model->forward(own.inputs[0]), own.targets).backward();
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_THAT(outcomes, testing::ElementsAre("disk gone", HasSubstr("could not receive from rank 1")));
  EXPECT_THAT(sink->description["lost_rank"], HasSubstr("could not receive from rank 1"));
}

TEST(RanksFail, SkippingIsRefused) {
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    Monitor(*network(), MonitorOptions().worker(Worker::Skip).signatures(SignatureOptions().ranks(ranks)),
            std::make_shared<log::Memory>());
  });
  EXPECT_THAT(thrown, Each(HasSubstr("Worker::Wait or Worker::Off with several ranks")));
}

/// What estimate_llc throws on each of three ranks, all of which can go on to speak with one another.
std::vector<std::string> chains_fail(const std::function<void(const RanksPtr&)>& estimate) {
  std::vector<std::string> errors(3);
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    try {
      estimate(ranks);
    } catch (const std::exception& error) {
      errors[static_cast<std::size_t>(ranks->rank())] = error.what();
    } catch (int) {
      errors[static_cast<std::size_t>(ranks->rank())] = "an int";
    }
    expect_nothing_left(ranks);
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  return errors;
}

TEST(RanksFail, ChainsNeedTheSameWeightsAndData) {
  const auto errors = chains_fail([](const RanksPtr& ranks) {
    const Data all = data();
    estimate_llc({*network(), categorical(), ranks->rank() == 2 ? all.slice(0, 40) : all},
                 LlcOptions().max_gradients(2000).ranks(ranks));
  });
  EXPECT_THAT(errors[0], HasSubstr("estimate_llc: rank 2: 323 weights, 40 samples"));
  EXPECT_THAT(errors[1], HasSubstr("estimate_llc: rank 0: estimate_llc: rank 2"));
  EXPECT_THAT(errors[2], HasSubstr("expected the same weights and data on all ranks"));
}

TEST(RanksFail, ChainsEndOnAllWhereOneThrows) {
  for (int failing = 0; failing < 3; ++failing) {
    for (const bool number : {false, true}) {
      const auto errors = chains_fail([&](const RanksPtr& ranks) {
        std::atomic<int> calls = 0;
        const Forward forward = [&](torch::nn::Module& model, const std::vector<at::Tensor>& inputs) {
          if (ranks->rank() == failing && ++calls > 40) number ? throw 42 : throw std::runtime_error("disk gone");
          return dynamic_cast<Network&>(model).forward(inputs[0]);
        };
        estimate_llc({*network(), categorical(), data(), forward},
                     LlcOptions().max_gradients(2000).threads(1).ranks(ranks));
      });
      for (int rank = 0; rank < 3; ++rank) {
        EXPECT_THAT(errors[static_cast<std::size_t>(rank)],
                    HasSubstr(!number           ? "disk gone"
                              : rank == failing ? "an int"
                                                : "an exception of a type of its own"));
      }
    }
  }
}

TEST(RanksFail, ChainsOfARankThatCannotBeginEndTheOthers) {
  for (int failing = 0; failing < 3; ++failing) {
    const auto errors = chains_fail([&](const RanksPtr& ranks) {
      Data own = data();
      if (ranks->rank() == failing) own.targets = at::Tensor();
      estimate_llc({*network(), categorical(), own}, LlcOptions().max_gradients(2000).ranks(ranks));
    });
    EXPECT_THAT(errors, Each(HasSubstr("data.targets is undefined"))) << failing;
  }
}

/// An estimate over three ranks, with options of each one's own.
LlcEstimate spread_estimate(const std::function<LlcOptions(int rank, LlcOptions)>& options_of) {
  LlcEstimate estimate;
  const auto thrown = on_ranks(3, [&](const RanksPtr& ranks) {
    const LlcOptions same =
        LlcOptions().sampler(Sampler::Mala).chains(3).threads(1).burn_in(20).draws(60).gamma(5).ranks(ranks);
    LlcEstimate own = estimate_llc({*network(), categorical(), data()}, options_of(ranks->rank(), same));
    if (ranks->rank() == 0) estimate = std::move(own);
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  return estimate;
}

TEST(Chains, GoByTheFirstRanksClock) {
  const LlcEstimate plain = spread_estimate([](int, const LlcOptions& options) { return options; });
  ASSERT_TRUE(plain.lambda);
  const LlcEstimate other =
      spread_estimate([](int rank, LlcOptions options) { return rank == 0 ? options : options.max_seconds(1e-9); });
  ASSERT_TRUE(other.lambda);
  EXPECT_EQ(*other.lambda, *plain.lambda) << "another rank's clock counts for nothing";
  const LlcEstimate ended =
      spread_estimate([](int rank, LlcOptions options) { return rank == 0 ? options.max_seconds(1e-9) : options; });
  EXPECT_FALSE(ended.lambda);
  EXPECT_THAT(ended.verdict(), HasSubstr("stopped after"));
}

TEST(Chains, AreCancelledFromAnyRank) {
  for (int by = 0; by < 3; ++by) {
    std::atomic<int> asked = 0;
    const LlcEstimate estimate = spread_estimate([&](int rank, LlcOptions options) {
      return rank == by
                 ? options.draws(std::nullopt).max_gradients(std::nullopt).cancelled([&] { return ++asked > 70; })
                 : options.draws(std::nullopt).max_gradients(std::nullopt);
    });
    EXPECT_THAT(estimate.failures, testing::Contains(HasSubstr("cancelled after"))) << by;
  }
}

}  // namespace
}  // namespace dds
