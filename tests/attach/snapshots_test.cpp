// `dds attach --snapshots` and `dds llc`: parameters, a probe and the network from outside, and the LLC that they give.
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <algorithm>
#include <dds/llc.hpp>
#include <dds/script.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "src/tool/tensors.hpp"
#include "tests/attach/fixture.hpp"

namespace dds {
namespace {

using test::AttachTest;
using test::content;
using test::Result;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Values;
namespace fs = std::filesystem;

std::map<std::string, at::Tensor> tensors_in(const fs::path& file) {
  const tool::NamedTensors found = tool::load_tensors(file);
  return {found.tensors.begin(), found.tensors.end()};
}

void expect_same(const std::map<std::string, at::Tensor>& found, const std::map<std::string, at::Tensor>& expected) {
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_EQ(found.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(torch::equal(found.at(name), tensor)) << name;
  }
}

TEST_F(AttachTest, SnapshotsAreWhatTheStepBeganWith) {
  const std::string command = program("endings") + " saved";
  const Result bare = shell(command);
  EXPECT_EQ(bare, attach("--every 2 --snapshots --out run", command));
  for (const int step : {0, 2, 4}) {  // the last one is read as the process ends
    SCOPED_TRACE(step);
    auto had = tensors_in(path(fmt::format("had.{}.pt", step)));
    EXPECT_EQ(had.size(), 9U);
    had["norm.num_batches_tracked"] += 1;  // raised before any operator took a parameter
    expect_same(tensors_in(path(fmt::format("run/snapshots/{}.pt", step))), had);
  }
  EXPECT_FALSE(fs::exists(path("run/snapshots/1.pt")));
  const nlohmann::json attached = test::described(run(), "attach");
  EXPECT_EQ(attached["snapshots"]["written"], 3);
  EXPECT_THAT(attached["notes"].dump(), HasSubstr("no probe batch is recorded: a program in C++"));
  EXPECT_THAT(dds("llc run").error,
              HasSubstr("run has no model.pt, the network as TorchScript: give one with --model"));
}

TEST_F(AttachTest, SnapshotsThatCannotBeWrittenHarmNothingAndAreToldOfOnce) {
  const std::string command = program("endings") + " squatted";
  fs::create_directory(path("run"));
  const Result bare = shell(command);
  fs::remove_all(path("run"));
  EXPECT_EQ(bare, attach("--every 1 --snapshots --out run", command));
  const log::Run log = run();
  EXPECT_EQ(log.signatures.size(), 6U * 2 * 2);
  EXPECT_EQ(test::described(log, "attach")["snapshots"]["written"], 1);
  EXPECT_EQ(test::described(log, "attach")["snapshots"]["failed"], 5);
  const std::string notes = test::described(log, "attach")["notes"].dump();
  EXPECT_THAT(notes, HasSubstr("step 1 has no snapshot"));
  EXPECT_THAT(notes, testing::Not(HasSubstr("step 2")));
}

/// Importing PyTorch takes seconds: how the script goes about every way without us is asked once.
class SnapshotsInPython : public test::PythonAttachTest {
 protected:
  /// Attaches to a way of the script, which must say and draw what it does without.
  nlohmann::ordered_json attached_to(const std::string& way) const {
    static const std::string bare =
        shell(script("snapshots") +
              " classes hooked keywords positions squares binary branch coupled weighted parts sliced")
            .out;
    const std::size_t begin = bare.find("way " + way + "\n");
    EXPECT_NE(begin, std::string::npos) << bare;
    const Result attached = attach("--every 2 --snapshots --out run", script("snapshots") + " " + way);
    EXPECT_EQ(attached.status, 0) << attached.error;
    EXPECT_EQ(attached.out, bare.substr(begin, bare.find("way ", begin + 1) - begin));
    EXPECT_EQ(std::count(attached.error.begin(), attached.error.end(), '\n'), way == "hooked" ? 2 : 0)
        << "nothing but the program's own warning, once: " << attached.error;
    return test::described(run(), "attach");
  }
  std::map<std::string, at::Tensor> had(int step) const { return tensors_in(path(fmt::format("had.{}.pt", step))); }
};

TEST_F(SnapshotsInPython, GiveTheLlcOfTheSameWeightsAndData) {
  const nlohmann::ordered_json attached = attached_to("classes");
  EXPECT_THAT(attached["notes"], IsEmpty());
  EXPECT_EQ(attached["snapshots"]["probe_step"], 2);
  EXPECT_EQ(attached["snapshots"]["likelihood"], "categorical");
  for (const int step : {0, 2, 4, 6}) {
    SCOPED_TRACE(step);
    auto expected = had(step);
    expected.erase("x");
    expected.erase("y");
    expect_same(tensors_in(path(fmt::format("run/snapshots/{}.pt", step))), expected);
  }
  auto batch = had(2);
  expect_same(tensors_in(path("run/snapshots/probe.pt")), {{"input0", batch["x"]}, {"targets", batch["y"]}});
  const Result loaded = shell(python() +
                              " -c \"import torch; a, b = torch.load('run/snapshots/4.pt'), "
                              "torch.load('had.4.pt'); print(all(torch.equal(a[k], b[k]) for k in a), len(a))\"");
  EXPECT_EQ(loaded.out, "True 9\n") << loaded.error;

  const Result result = dds("llc run --steps 4 --max-gradients 3000 --seed 5");
  ASSERT_EQ(result.status, 0) << result.error;
  const ScriptModel model = load_script(path("run/snapshots/model.pt"));
  {
    const at::NoGradGuard no_grad;
    const auto weights = had(4);
    for (const auto& parameter : model.module->named_parameters()) parameter.value().copy_(weights.at(parameter.key()));
    for (const auto& buffer : model.module->named_buffers()) buffer.value().copy_(weights.at(buffer.key()));
  }
  const LlcEstimate expected = estimate_llc({*model.module, categorical(), Data(batch["x"], batch["y"]), model.forward},
                                            LlcOptions().max_gradients(3000).seed(5));
  const log::Run log = run();
  ASSERT_EQ(log.estimates.size(), 1U);
  EXPECT_EQ(log.estimates[0].step, 4);
  EXPECT_EQ(log.estimates[0].parameters, 4 + 4 + 20 + 5 + 15 + 3);
  EXPECT_EQ(log.estimates[0].lambda, expected.lambda);
  EXPECT_EQ(log.estimates[0].low, expected.low);
  EXPECT_EQ(log.estimates[0].verdict(), expected.verdict());
  EXPECT_FALSE(log.signatures.empty()) << "the rows of the training are there as before";
}

struct Way {
  std::string name, likelihood;
};
void PrintTo(const Way& way, std::ostream* os) { *os << way.name; }

class SnapshotsOf : public SnapshotsInPython, public testing::WithParamInterface<Way> {};

/// Losses that a likelihood has, and calls of all kinds.
TEST_P(SnapshotsOf, RecordedNetworksGiveTheirOwnOutput) {
  const std::string& way = GetParam().name;
  const nlohmann::ordered_json attached = attached_to(way);
  EXPECT_THAT(attached["notes"], IsEmpty());
  EXPECT_EQ(attached["snapshots"]["likelihood"], GetParam().likelihood);
  const auto probe = tensors_in(path("run/snapshots/probe.pt"));
  ScriptModel model = load_script(path("run/snapshots/model.pt"));
  EXPECT_EQ(model.module->named_parameters().size(), 6U);
  std::vector<at::Tensor> inputs;
  for (int i = 0; probe.contains(fmt::format("input{}", i)); ++i) inputs.push_back(probe.at(fmt::format("input{}", i)));
  const at::Tensor output = model.forward(*model.module, inputs);
  EXPECT_EQ(output.size(-1), 3) << "the classes are last";
  EXPECT_EQ(output.size(0), 24);
  const auto batch = had(2);
  const at::Tensor y = batch.at("y");
  const at::Tensor targets = way == "hooked"                          ? y.masked_fill(y == 2, -100)
                             : way == "positions"                     ? torch::stack({y, (y + 1) % 3}, 1)
                             : GetParam().likelihood == "categorical" ? y
                                                                      : torch::one_hot(y, 3).to(torch::kDouble);
  EXPECT_TRUE(torch::equal(probe.at("targets"), targets));
  const Result result = dds("llc run --every 2 --max-gradients 400 --read");
  EXPECT_EQ(result.status, 0) << result.error;
  const log::Run log = run();
  ASSERT_EQ(log.estimates.size(), 2U);
  EXPECT_EQ(log.estimates[1].step, 4);
  EXPECT_THAT(result.out, HasSubstr("is no LLC, for the reason that the verdict names"));
  EXPECT_TRUE(std::any_of(log.signatures.begin(), log.signatures.end(), [](const Signature& s) {
    return s.source == Source::Read && s.step == 4 && s.side == Side::Fisher && s.fisher_kind != FisherKind::Empirical;
  })) << "--read logs signatures of the snapshots";
}

INSTANTIATE_TEST_SUITE_P(Ways, SnapshotsOf,
                         Values(Way{"hooked", "categorical"}, Way{"keywords", "categorical"},
                                Way{"positions", "categorical"}, Way{"squares", "gaussian"},
                                Way{"binary", "bernoulli"}),
                         [](const auto& info) { return info.param.name; });

class SnapshotsWithout : public SnapshotsInPython, public testing::WithParamInterface<Way> {};

TEST_P(SnapshotsWithout, AModelSayWhy) {
  const nlohmann::ordered_json attached = attached_to(GetParam().name);
  ASSERT_EQ(attached["notes"].size(), 1U) << attached["notes"];
  EXPECT_THAT(attached["notes"][0].get<std::string>(), HasSubstr(GetParam().likelihood));
  EXPECT_EQ(attached["snapshots"]["model"], nullptr);
  EXPECT_EQ(attached["snapshots"]["written"], 4);
  const Result result = dds("llc run");
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.error, HasSubstr("run has no model.pt"));
}

INSTANTIATE_TEST_SUITE_P(Ways, SnapshotsWithout,
                         Values(Way{"branch", "decides by the value of a tensor (Tensor.__bool__)"},
                                Way{"coupled", "not independent"}, Way{"weighted", "it weights classes"},
                                Way{"parts", "no network's forward was called as a whole"},
                                Way{"sliced", "took what a network's forward gave out"}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dds
