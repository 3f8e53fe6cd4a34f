// `dds attach`, as a shell runs it, on programs that know nothing of it: that they do the same to the bit, that what is
// read is what a Monitor in them reads, and how everything ends.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <csignal>
#include <dds/signature_options.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "src/attach/settings.hpp"
#include "tests/attach/fixture.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::AttachTest;
using test::content;
using test::quoted;
using test::Result;
using testing::HasSubstr;
using testing::Values;
namespace fs = std::filesystem;

using Key = std::tuple<std::int64_t, std::string, Side>;

std::map<Key, Signature> by_key(const log::Run& run, const std::string& prefix = "") {
  std::map<Key, Signature> signatures;
  for (const Signature& s : run.signatures) {
    if (s.layer.starts_with(prefix)) signatures[{s.step, s.layer.substr(prefix.size()), s.side}] = s;
  }
  return signatures;
}

void expect_near(const std::optional<double>& a, const std::optional<double>& b, double scale,
                 const std::string& what) {
  ASSERT_EQ(a.has_value(), b.has_value()) << what;
  if (a) {
    EXPECT_LE(std::abs(*a - *b), 1e-12 * std::max(1.0, scale)) << what;
  }
}

/// The numbers of two readings of the same rows.
void expect_equal(const Signature& a, const Signature& b) {
  const std::string what = fmt::format("step {}, {}, {}", a.step, a.layer, to_string(a.side));
  EXPECT_EQ(std::tie(a.kind, a.source, a.fisher_kind, a.reduction, a.rows, a.width, a.rank, a.structural_bound,
                     a.dead_directions, a.calls, a.backwards, a.fixed_rank),
            std::tie(b.kind, b.source, b.fisher_kind, b.reduction, b.rows, b.width, b.rank, b.structural_bound,
                     b.dead_directions, b.calls, b.backwards, b.fixed_rank))
      << what;
  EXPECT_EQ(to_string(a.status), to_string(b.status)) << what;
  const double sigma = a.sigma_max.value_or(1);
  expect_near(a.sigma_max, b.sigma_max, sigma, what);
  expect_near(a.sigma_min, b.sigma_min, sigma, what);
  expect_near(a.sigma_min_plus, b.sigma_min_plus, sigma, what);
  expect_near(a.log10_lambda_min_plus, b.log10_lambda_min_plus, std::abs(a.log10_lambda_min_plus.value_or(1)), what);
  expect_near(a.log10_trace, b.log10_trace, std::abs(a.log10_trace.value_or(1)), what);
  expect_near(a.logdet_plus, b.logdet_plus, std::abs(a.logdet_plus.value_or(1)), what);
  expect_near(a.effective_rank, b.effective_rank, a.effective_rank.value_or(1), what);
}

// ---- programs in C++ ----

struct Program {
  std::string name;
  int every;
  bool same_steps = true;  ///< a Monitor's steps in it are updates
  bool example = false;    ///< one executable with a Monitor, which the argument 0 keeps from reading
};
void PrintTo(const Program& program, std::ostream* os) { *os << program.name; }

class AttachPrograms : public AttachTest, public testing::WithParamInterface<Program> {};

TEST_P(AttachPrograms, DoTheSameAndAreReadAsByAMonitor) {
  const auto& [name, every, same_steps, example] = GetParam();
  const std::string command = example ? program(name) + " weights idle 0" : program("bare_" + name) + " weights";
  const auto weights = [&] {
    std::string bytes = content(path("weights"));
    for (const char* left : {"weights", "idle", "idle_g"}) fs::remove_all(path(left));
    return bytes;
  };
  const Result bare = shell(command);
  const std::string trained = weights();
  ASSERT_EQ(bare.status, 0) << bare.error;
  ASSERT_EQ(bare, shell(command));
  ASSERT_EQ(trained, weights()) << "not deterministic by itself";

  EXPECT_EQ(bare, attach(fmt::format("--every {} --out run", every), command));
  EXPECT_EQ(trained, weights());
  const log::Run attached = run();
  // The transformer reads its positions by a slice, and its head is the embedding's weight, with rows under that name.
  nlohmann::json expected = nlohmann::json::array();
  if (name == "transformer") expected.push_back("no numbers came of lm_head, wpe");
  EXPECT_EQ(test::described(attached, "attach")["notes"], expected);
  ASSERT_FALSE(attached.signatures.empty());

  ASSERT_EQ(shell(program(example ? name : "monitored_" + name) + " weights monitor").status, 0);
  const auto mine = by_key(attached);
  std::size_t compared = 0;
  for (const char* log : {"monitor", "monitor_g"}) {
    if (!fs::exists(path(log))) continue;
    for (const auto& [key, signature] : by_key(log::read_run(path(log)))) {
      if (!same_steps && std::get<0>(key) > 0) continue;
      ++compared;
      const auto found = mine.find(key);
      ASSERT_NE(found, mine.end()) << std::get<0>(key) << " " << std::get<1>(key);
      Signature other = found->second;
      // A Monitor of the generator alone does not know that the discriminator mixes samples.
      if (log == std::string("monitor_g")) other.status = signature.status;
      if (same_steps) expect_equal(signature, other);
    }
  }
  EXPECT_GT(compared, 0u);
}

INSTANTIATE_TEST_SUITE_P(Styles, AttachPrograms,
                         Values(Program{"mnist", 4}, Program{"transformer", 3}, Program{"gan", 2, true, true},
                                Program{"recurrent", 3, true, true}, Program{"ppo", 2, false}),
                         [](const auto& info) { return info.param.name; });

// ---- ways to end, and to go about the steps ----

struct Ending {
  std::string way;
  std::vector<std::int64_t> steps;  ///< read, where every second is due
  std::int64_t updates_per_step = 1;
};
void PrintTo(const Ending& ending, std::ostream* os) { *os << ending.way; }

class AttachEndings : public AttachTest, public testing::WithParamInterface<Ending> {};

TEST_P(AttachEndings, AreTheCommandsOwnAndLeaveAWholeLog) {
#ifdef __SANITIZE_ADDRESS__
  if (GetParam().way == "crash")
    GTEST_SKIP() << "the sanitiser's report of it has addresses, which are others each time";
#endif
  const std::string command = program("endings") + " " + GetParam().way;
  const Result bare = shell(command);
  EXPECT_EQ(bare, attach("--every 2 --out run", command));

  const log::Run log = run();
  std::set<std::int64_t> steps;
  for (const Signature& s : log.signatures) {
    steps.insert(s.step);
    // In the first step a weight is known for a parameter only once it has a gradient.
    const bool first = s.step == 0 && to_string(s.status) == "bound_unknown";
    EXPECT_TRUE(s.status.empty() || first) << s.step << " " << s.layer << " " << to_string(s.status);
  }
  EXPECT_EQ(std::vector<std::int64_t>(steps.begin(), steps.end()), GetParam().steps);
  EXPECT_EQ(test::described(log, "attach")["updates_per_step"], GetParam().updates_per_step);
  const nlohmann::json notes = test::described(log, "attach")["notes"];
  if (GetParam().way == "part") {  // when the first step ended is known too late
    EXPECT_EQ(notes, nlohmann::json::array({"1 of 3 due steps were not read"}));
  } else {
    EXPECT_EQ(notes, nlohmann::json::array());
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, AttachEndings,
                         Values(Ending{"return", {0, 2, 4}}, Ending{"exit", {0, 2}}, Ending{"quick", {0, 2}},
                                Ending{"abort", {0, 2}}, Ending{"kill", {0, 2}}, Ending{"interrupt", {0, 2}},
                                Ending{"crash", {0, 2}}, Ending{"throw", {0, 2}}, Ending{"handled", {0, 2, 4}},
                                Ending{"fork", {0, 2, 4}}, Ending{"thread", {0, 2, 4}}, Ending{"part", {2, 4}},
                                Ending{"accumulate", {0, 2}}),
                         [](const auto& info) { return info.param.way; });

TEST_F(AttachTest, AChildThatExecutesAProgramHasAFolderOfItsOwn) {
  const std::string command = program("endings") + " execute";
  const Result bare = shell(command);
  EXPECT_EQ(bare, attach("--every 2 --out run", command));
  std::set<std::string> folders;
  for (const fs::directory_entry& entry : fs::directory_iterator(path(""))) {
    if (entry.is_directory()) folders.insert(entry.path().filename().string());
  }
  ASSERT_EQ(folders.size(), 2U);
  EXPECT_EQ(*folders.begin(), "run");
  EXPECT_THAT(*folders.rbegin(), testing::StartsWith("run."));
  for (const std::string& folder : folders) EXPECT_EQ(run(folder).signatures.size(), 3U * 2 * 2) << folder;
}

TEST_F(AttachTest, TheThreadThatUpdatesIsFollowed) {
  const std::string command = program("endings") + " threads";
  EXPECT_EQ(shell(command), attach("--every 2 --out run", command));
  const log::Run log = run();
  std::set<std::pair<std::int64_t, std::string>> readings;
  for (const Signature& signature : log.signatures) readings.insert({signature.step, signature.layer});
  std::set<std::pair<std::int64_t, std::string>> expected;
  for (const std::int64_t step : {1, 2, 4}) expected.insert({{step, "first"}, {step, "second"}});
  EXPECT_EQ(readings, expected);
}

TEST_F(AttachTest, EveryEvaluationOfAClosureThatMovesTheParametersIsAStep) {
  const std::string command = program("endings") + " lbfgs";
  EXPECT_EQ(shell(command), attach("--every 1 --out run", command));
  const log::Run log = run();
  std::set<std::int64_t> steps;
  for (const Signature& s : log.signatures) steps.insert(s.step);
  EXPECT_GE(steps.size(), 4U);
  EXPECT_EQ(*steps.rbegin(), std::ssize(steps) - 1);
}

TEST_F(AttachTest, LeavesWithoutAModuleAreNamedByTheirOrder) {
  const std::string command = program("endings") + " raw";
  EXPECT_EQ(shell(command), attach("--every 2 --out run", command));
  const log::Run log = run();
  std::set<std::pair<std::string, std::int64_t>> layers;
  for (const Signature& s : log.signatures) layers.insert({s.layer, s.step});
  EXPECT_THAT(layers, testing::IsSupersetOf({std::pair<std::string, std::int64_t>{"leaf1 [6x8]", 0},
                                             {"leaf2 [8x3]", 0},
                                             {"leaf1 [6x8]", 2},
                                             {"leaf2 [8x3]", 4}}));
  const auto by = test::described(log, "attach")["updates_seen_by"];
  EXPECT_EQ(by["elements"], 6);
  EXPECT_EQ(by["versions"], 0);
}

TEST_F(AttachTest, InputsAreNoParametersAndLaterNetworksGetNamesOfTheirOwn) {
  const std::string command = program("endings") + " inputs";
  EXPECT_EQ(shell(command), attach("--every 1 --out run", command));
  const log::Run log = run();
  std::set<std::string> layers;
  for (const Signature& s : log.signatures) layers.insert(s.layer);
  EXPECT_THAT(layers, testing::UnorderedElementsAre("first", "second", "Net.first", "Net.second", "Net#2.first",
                                                    "Net#2.second"));
}

// ---- options ----

TEST_F(AttachTest, OptionsSayWhatIsRead) {
  const std::string command = program("endings") + " return";
  ASSERT_EQ(attach("--every 1 --layers 'sec*' --max-rows 7 --stop-after 2 --out run", command).status, 7);
  const log::Run log = run();
  ASSERT_EQ(log.signatures.size(), 3U * 2);
  for (const Signature& s : log.signatures) {
    EXPECT_EQ(s.layer, "second");
    EXPECT_EQ(s.rows, 7);
    EXPECT_LE(s.step, 2);
  }
}

TEST_F(AttachTest, ListShowsLayersAfterTheCommandsOwnOutput) {
  const std::string command = program("endings") + " return";
  const Result bare = shell(command), listed = attach("--list --out run", command);
  EXPECT_EQ(listed.status, bare.status);
  EXPECT_EQ(listed.error, "");
  const std::string product =
      std::string("aten::") + (listed.out.find("aten::linear") != std::string::npos ? "linear" : "addmm");
  EXPECT_EQ(listed.out, bare.out + "first\n    " + product + " x 1: a run of first\nsecond\n    " + product +
                            " x 1: a run of second\n");
  EXPECT_FALSE(fs::exists(path("run")));
}

TEST_F(AttachTest, ListThatCannotBePrintedIsAnError) {
  const Result failed = shell("sh -c " + quoted("\"" + std::string(test::kTool) + "\" attach --list -- \"" +
                                                test::kPrograms + "/endings\" return >/dev/full"));
  EXPECT_EQ(failed.status, 7) << "the command failed by itself";
  EXPECT_THAT(failed.error, HasSubstr("cannot write to the standard output"));
}

TEST_F(AttachTest, PathsMayHaveColons) {
  const fs::path work = path("12:30"), temporary = path("tmp:dir");
  for (const fs::path& folder : {work, temporary}) fs::create_directory(folder);
  const auto attached = [&](const std::string& options) {
    return shell("sh -c " + quoted("cd 12:30 && exec env TMPDIR=\"" + temporary.string() + "\" \"" + test::kTool +
                                   "\" attach " + options + " -- \"" + test::kPrograms + "/endings\" return"));
  };
  EXPECT_EQ(attached("--every 3 --out 2024-01-01T12:00").status, 7);
  EXPECT_EQ(run("12:30/2024-01-01T12:00").signatures.size(), 2U * 2 * 2);
  const Result listed = attached("--list");
  EXPECT_EQ(listed.error, "");
  EXPECT_THAT(listed.out, HasSubstr("first\n    aten::"));
}

TEST_F(AttachTest, APatternThatSelectsNothingIsNoted) {
  const std::string command = program("endings") + " return";
  ASSERT_EQ(attach("--every 1 --layers 'nothing*' --layers 'sec*' --out both", command).status, 7);
  const auto notes = [&](const std::string& name) {
    return nlohmann::json::parse(run(name).description.at("attach"))["notes"].dump();
  };
  const std::string says = "the pattern 'nothing*' selects none of the layers first, second";
  EXPECT_THAT(notes("both"), HasSubstr(says));
  EXPECT_FALSE(run("both").signatures.empty());
  ASSERT_EQ(attach("--layers 'nothing*' --out none", command).status, 7);
  EXPECT_THAT(notes("none"), HasSubstr(says));
  const Result listed = attach("--list --layers 'nothing*'", command);
  EXPECT_THAT(listed.out, HasSubstr("nothing*\n    selects none of the layers first, second\n"));
}

TEST_F(AttachTest, ByHand) {
  const std::string objects = std::string(test::kAttach) + "/libdds_preload.so";
  const std::string command = program("endings") + " return";
  EXPECT_EQ(shell("LD_PRELOAD=" + quoted(objects) + " DDS_ATTACH=out=run:every=3:quiet=1 " + command), shell(command));
  EXPECT_EQ(run().signatures.size(), 2U * 2 * 2);
  const Result wrong = shell("LD_PRELOAD=" + quoted(objects) + " DDS_ATTACH=every=often " + command);
  EXPECT_EQ(wrong.status, 7);
  EXPECT_THAT(wrong.error, HasSubstr("every is 'often', expected a whole number from 1 on"));
}

struct Refused {
  std::string name, options, command, says;
  int status = 1;
};
void PrintTo(const Refused& refused, std::ostream* os) { *os << refused.name; }

class AttachRefuses : public AttachTest, public testing::WithParamInterface<Refused> {};

TEST_P(AttachRefuses, InOneLine) {
  test::put(path("script"), "#!/bin/sh\necho not run\n");
  test::put(path("text"), "not run\n");
  test::put(path("torn"), content("/bin/ls").substr(0, 100));
  for (const char* file : {"script", "text", "torn"}) fs::permissions(path(file), fs::perms::owner_all);
  for (const char* folder : {"full", "old/lib", "old/include/torch"}) fs::create_directories(path(folder));
  test::put(path("full/file"), "");
  // What tells a wheel of before 2.7 (of 2.5.1, here) from a newer one: both have much of libstdc++, in either ABI.
  test::put(path("old/lib/libtorch_cpu.so"), "");
  test::put(path("old/lib/libc10.so"),
            "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6assignEPKcm\n_ZN3c106detail14torchCheckFailEPKcS2_"
            "jRKSs\n");
  test::put(path("old/include/torch/version.h"),
            "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 5\n#define TORCH_VERSION_PATCH 1\n");
  const Result result = attach(GetParam().options, GetParam().command);
  EXPECT_EQ(result.status, GetParam().status);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.error.starts_with("dds: error: attach: ")) << result.error;
  EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
  EXPECT_THAT(result.error, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(Commands, AttachRefuses,
                         Values(Refused{"missing", "", "no_such_command", "there is no command no_such_command", 127},
                                Refused{"missing_file", "", "./no_such_file", "is no program that could be run", 127},
                                Refused{"directory", "", "./full", "is no program that could be run", 126},
                                Refused{"text", "", "./text", "is neither a program nor a script"},
                                Refused{"torn", "", "./torn", "ends before its last segment"},
                                Refused{"set_uid", "", "/usr/bin/passwd", "runs with other rights than yours"},
                                Refused{"no_package", "", "/usr/bin/python3 -c 1", "has no package torch"},
                                Refused{"no_folder", "--torch /nowhere", "ls",
                                        "LibTorch is '/nowhere', expected the torch folder of a wheel"},
                                Refused{"old_abi", "--torch old", "ls", "has the C++ ABI from before C++11"},
                                Refused{"full", "--out full", std::string(test::kPrograms) + "/endings",
                                        "'full', expected an empty folder"}),
                         [](const auto& info) { return info.param.name; });

// ---- Python ----

class AttachPython : public test::PythonAttachTest, public testing::WithParamInterface<const char*> {
 protected:
  std::string script() const { return PythonAttachTest::script(GetParam()); }
};

TEST_P(AttachPython, IsReadAsByHooksInPython) {
  const Result bare = shell("DDS_REFERENCE=reference.json DDS_EVERY=2 " + script());
  ASSERT_EQ(bare.status, 0) << bare.error;
  EXPECT_EQ(bare, attach("--every 2 --out run", script())) << "the loss is another";

  const log::Run log = run();
  EXPECT_EQ(test::described(log, "attach")["notes"], nlohmann::json::array());
  const auto attached = by_key(log);
  const auto reference = nlohmann::json::parse(content(path("reference.json")));
  ASSERT_FALSE(reference.empty());
  std::set<std::string> layers;
  for (const nlohmann::json& line : reference) {
    const Key key{line["step"], line["layer"], side_from_string(line["side"].get<std::string>())};
    layers.insert(std::get<1>(key));
    const auto found = attached.find(key);
    ASSERT_NE(found, attached.end()) << line["layer"];
    const Signature& s = found->second;
    const auto sigma = line["sigma"].get<std::vector<double>>();
    double squares = 0, logarithms = 0;
    for (std::size_t i = 0; i < sigma.size(); ++i) {
      squares += sigma[i] * sigma[i];
      if (static_cast<std::int64_t>(i) < *s.rank)
        logarithms += std::log(sigma[i] * sigma[i] / static_cast<double>(*s.rows));
    }
    const std::string what = line["layer"].get<std::string>() + " " + line["side"].get<std::string>();
    EXPECT_EQ(s.rows, line["rows"].get<std::int64_t>()) << what;
    EXPECT_NEAR(*s.sigma_max / sigma.front(), 1, 1e-10) << what;
    EXPECT_NEAR(*s.log10_trace, std::log10(squares / static_cast<double>(*s.rows)), 1e-10) << what;
    EXPECT_NEAR(*s.logdet_plus, logarithms, 1e-10 * std::max(1.0, std::abs(logarithms))) << what;
  }
  // Every layer is named as in named_modules(), which is where the reference has its names from.
  for (const auto& [key, signature] : attached) {
    if (signature.sigma_max) {
      EXPECT_TRUE(layers.contains(std::get<1>(key))) << std::get<1>(key);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Scripts, AttachPython,
                         Values("classifier", "transformer", "hugging_face", "transforms", "checkpoints"),
                         [](const auto& info) { return std::string(info.param); });

// ---- without a process ----

TEST(AttachSettings, AreReadFromText) {
  const auto settings = attach::Settings::parse("out=runs/a:every=3:layers=fc*:layers=conv?:max_rows=5:stop_after=0");
  EXPECT_EQ(settings.out, "runs/a");
  EXPECT_EQ(settings.every, 3);
  EXPECT_THAT(settings.layers, testing::ElementsAre("fc*", "conv?"));
  EXPECT_EQ(settings.max_rows, 5);
  EXPECT_EQ(settings.stop_after, 0);
  EXPECT_FALSE(settings.snapshots);
  EXPECT_TRUE(attach::Settings::parse("snapshots=1").snapshots);
  const attach::Settings none = attach::Settings::parse("");
  EXPECT_EQ(none.every, 100);
  EXPECT_EQ(none.max_rows, SignatureOptions().max_rows());
  for (const char* wrong :
       {"every=0", "every=x", "every=3x", "every", "max_rows=-1", "stop_after=-1", "snapshots=2", "color=red"}) {
    EXPECT_THAT(test::message_of([&] { attach::Settings::parse(wrong); }), HasSubstr("expected")) << wrong;
  }
}

TEST(AttachSettings, AreWrittenAsTheyAreRead) {
  const std::string all =
      "plugin=p.so:torch=t.so:out=runs/a:every=10:max_rows=9:layers=fc*:layers=conv1:stop_after=0:snapshots=1:list=l";
  EXPECT_EQ(attach::Settings::parse(all).text(), all);
  attach::Settings settings;
  settings.out = "runs/12:30:00";
  settings.layers = {"a:b", "\\", "c\\:d"};
  EXPECT_EQ(attach::Settings::parse(settings.text()).out, settings.out);
  EXPECT_EQ(attach::Settings::parse(settings.text()).layers, settings.layers);
}

}  // namespace
}  // namespace dds
