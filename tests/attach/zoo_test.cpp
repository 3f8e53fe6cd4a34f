// Programs of every kind of training: that all of their steps are counted, whatever is due, that all of their networks
// are read under the names that they have, and that the account at the end tells what was not read.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/attach/fixture.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::Result;
using testing::HasSubstr;
namespace fs = std::filesystem;

struct Kind {
  std::string name;
  int every;
};
void PrintTo(const Kind& kind, std::ostream* os) { *os << kind.name << " every " << kind.every; }

std::string name_of(const testing::TestParamInfo<Kind>& info) {
  return fmt::format("{}_{}", info.param.name, info.param.every);
}

/// Of a base that runs the programs of a language.
template <class Base>
class Zoo : public Base, public testing::WithParamInterface<Kind> {
 protected:
  void expect_all_of(const std::string& programs) {
    const auto& [name, every] = GetParam();
    const std::string command = programs + " " + name + " truth";
    const Result bare = this->shell(command);
    ASSERT_EQ(bare.status, 0) << bare.error;
    EXPECT_EQ(bare, this->attach(fmt::format("--every {} --out run", every), command));
    const nlohmann::json truth = nlohmann::json::parse(test::content(this->path("truth")));
    const log::Run log = this->run();
    const nlohmann::json attached = test::described(log, "attach");
    EXPECT_EQ(attached["steps"], truth["steps"]) << attached.dump(1);
    EXPECT_EQ(attached["notes"], nlohmann::json::array());
    std::set<std::string> read;
    for (const Signature& s : log.signatures) {
      if (s.sigma_max) read.insert(s.layer);
    }
    EXPECT_EQ(read, truth["layers"].get<std::set<std::string>>()) << attached.dump(1);
    for (const auto& network : attached["networks"]) {
      if (network["updates"] > 0) {
        EXPECT_GT(network["readings"], 0) << network;
      }
    }
  }
};

using ZooInCpp = Zoo<test::AttachTest>;
TEST_P(ZooInCpp, IsCountedAndReadAsItIs) { expect_all_of(program("zoo")); }

INSTANTIATE_TEST_SUITE_P(Kinds, ZooInCpp,
                         testing::Values(Kind{"sequence", 7}, Kind{"sequence", 100}, Kind{"growing", 7},
                                         Kind{"growing", 100}, Kind{"switched", 7}, Kind{"embeddings", 7},
                                         Kind{"embeddings_by_hand", 7}, Kind{"warm_up", 7}, Kind{"delayed_actor", 7},
                                         Kind{"delayed_actor", 25}, Kind{"wgan", 7}, Kind{"wgan", 100}, Kind{"gan", 7},
                                         Kind{"pgd", 7}, Kind{"pgd_backward", 7}, Kind{"diagonal", 7},
                                         Kind{"thread_an_epoch", 7}, Kind{"thread_a_step", 7},
                                         Kind{"threads_in_turn", 7}, Kind{"by_value", 7}, Kind{"transformer", 5}),
                         name_of);

using ZooInPython = Zoo<test::PythonAttachTest>;
TEST_P(ZooInPython, IsCountedAndReadAsItIs) {
  expect_all_of(python() + " " +
                test::quoted(std::string(test::kSourceRoot) + "/experiments/attach_zoo/programs/programs.py"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, ZooInPython,
                         testing::Values(Kind{"sequence", 7}, Kind{"warm_up", 7}, Kind{"embeddings", 7}, Kind{"pgd", 7},
                                         Kind{"soft_actor", 7}, Kind{"thread_an_epoch", 7}, Kind{"by_hand", 7},
                                         Kind{"within_the_pass", 7}),
                         name_of);

class AttachAccount : public test::AttachTest {};

/// An attack's passes go through the network, and are none of its training.
TEST_F(AttachAccount, RowsOfAttacksAreNotRead) {
  for (const char* kind : {"pgd", "pgd_backward"}) {
    ASSERT_EQ(attach(fmt::format("--every 7 --out {}", kind), program("zoo") + " " + kind + " truth").status, 0);
    const log::Run log = run(kind);
    ASSERT_FALSE(log.signatures.empty());
    for (const Signature& s : log.signatures) {
      if (!s.sigma_max || s.side != Side::Fisher) continue;
      EXPECT_EQ(s.rows, 16) << kind << " " << s.step << " " << s.layer;
    }
  }
}

TEST_F(AttachAccount, IsOneLineOnTheStandardError) {
  const std::string command = program("zoo") + " gan truth";
  const Result bare = shell(command), told = dds("attach --every 10 --out run -- " + command);
  EXPECT_EQ(told.out, bare.out);
  EXPECT_EQ(told.status, bare.status);
  EXPECT_EQ(told.error, bare.error + fmt::format("dds: attach: 30 steps (60 updates), 3 of 3 due read, 2 networks, 4 "
                                                 "layers, in {}\n",
                                                 path("run").string()));
}

TEST_F(AttachAccount, SaysWhyThereIsNoLog) {
  const Result nothing = dds("attach --out run -- " + program("zoo"));
  EXPECT_THAT(nothing.error, HasSubstr("dds: attach: no log: no backward pass was run\n"));
  EXPECT_EQ(nothing.status, 0);
  EXPECT_EQ(dds("attach --quiet --out run -- " + program("zoo")).error, "");
}

TEST_F(AttachAccount, WhatACommandStartsFindsItsLibTorchByItself) {
  test::put(path("script"), "#!/bin/sh\necho first\n" + program("zoo") + " gan truth\n");
  fs::permissions(path("script"), fs::perms::owner_all);
  const Result bare = shell("./script");
  EXPECT_EQ(bare, attach("--every 10 --out run", "./script"));
  EXPECT_EQ(run().signatures.size(), 3U * 4 * 2);
  const Result none = dds("attach --out none -- ls script");
  EXPECT_EQ(none.out, "script\n");
  EXPECT_EQ(none.error, "dds: attach: no log: no LibTorch was loaded\n");
}

TEST_F(AttachAccount, APatternThatSelectsNothingIsAnErrorAtTheEnd) {
  const Result result = attach("--every 10 --layers 'nothing*' --out run", program("zoo") + " gan truth");
  EXPECT_EQ(result.status, 0) << "the exit code is the command's";
  EXPECT_THAT(result.error, HasSubstr("dds: error: attach: the pattern 'nothing*' selects none of the layers critic1"));
}

}  // namespace
}  // namespace dds
