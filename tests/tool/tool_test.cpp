// The command-line tool, as a shell runs it: what it prints, what it leaves on disk, and how it ends.
#include <elf.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <dds/learning_coefficient.hpp>
#include <dds/llc.hpp>
#include <dds/read.hpp>
#include <dds/run.hpp>
#include <dds/script.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "src/log/csv.hpp"
#include "tests/log/fixture.hpp"
#include "tests/paths.hpp"

namespace dds {
namespace {

using test::content;
using test::estimate;
using test::signature;
using testing::Values;
namespace fs = std::filesystem;

struct Result {
  int code = -1;
  std::string out, error;
};

std::string quoted(const std::string& text) { return "'" + text + "'"; }

class ToolTest : public test::LogTest {
 protected:
  /// Runs `command` in a shell.
  Result shell(const std::string& command) const {
    const int status = std::system((command + " >" + quoted(path("out")) + " 2>" + quoted(path("error"))).c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, content(path("out")), content(path("error"))};
  }
  Result dds(const std::string& arguments) const { return shell(quoted(test::kTool) + " " + arguments); }
  std::string file(const std::string& name) const { return quoted(path(name).string()); }

  /// A run of three steps: two layers, of which one has a dead direction at the end and no number at the last step.
  void write_run(const std::string& name, double shift = 0) const {
    const auto sink = log::directory(path(name));
    for (const std::int64_t step : {0, 10, 20}) {
      for (const char* layer : {"fc1", "block,\"0\""}) {
        Signature s = signature(step, layer);
        s.log10_lambda_min_plus = -4.5 - static_cast<double>(step) / 10 + shift;
        s.dead_directions = step / 20;
        s.at_floor = step == 20;
        sink->write(s);
      }
      sink->write(Metric{step, "loss", 1.0 / static_cast<double>(step + 1)});
      sink->write(estimate(step));
    }
    Signature none;
    none.step = 20;
    none.layer = "head";
    none.status = Status::NonFinite;
    sink->write(none);
  }
};

/// A line of a table, with single spaces between its cells.
std::string row_with(const std::string& text, const std::string& beginning) {
  const std::string squeezed = std::regex_replace(text, std::regex(" +"), " ");
  const std::size_t begin = squeezed.find("\n" + beginning);
  if (begin == std::string::npos) return "no row of " + beginning + " in\n" + text;
  return squeezed.substr(begin + 1, squeezed.find('\n', begin + 1) - begin - 1);
}

// ---- command lines that make no sense, and what cannot be done ----

struct Refused {
  std::string name, arguments;
  int code;
  std::string says;
};

class ToolRefuses : public ToolTest, public testing::WithParamInterface<Refused> {};

TEST_P(ToolRefuses, InOneLine) {
  write_run("run");
  write_run("other");
  test::put(path("text"), "no archive\nof any kind\n");
  const Result result = dds(std::regex_replace(GetParam().arguments, std::regex("%"), path("").string()));
  EXPECT_EQ(result.code, GetParam().code);
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.error.starts_with("dds: error: ")) << result.error;
  EXPECT_EQ(std::count(result.error.begin(), result.error.end(), '\n'), 1) << result.error;
  EXPECT_NE(result.error.find(GetParam().says), std::string::npos) << result.error;
}

INSTANTIATE_TEST_SUITE_P(
    CommandLines, ToolRefuses,
    Values(Refused{"nothing", "", 2, "command"}, Refused{"unknown", "frobnicate", 2, "frobnicate"},
           Refused{"missing", "read model.pt", 2, "DATA"}, Refused{"format", "export % --to xml --out %x", 2, "xml"},
           Refused{"interval", "watch %run --interval 0", 2, "--interval"},
           Refused{"interval_negative", "watch %run --interval -1", 2, "--interval"},
           Refused{"interval_long", "watch %run --interval 86401", 2, "--interval"},
           Refused{"interval_infinite", "watch %run --interval inf", 2, "--interval"},
           Refused{"interval_beyond_clocks", "watch %run --interval 1e300", 2, "--interval"},
           Refused{"interval_nan", "watch %run --interval nan", 2, "nan is no number of seconds"},
           Refused{"no_run", "report %nowhere", 1, "nowhere holds no run"},
           Refused{"twice", "report %run %run/../run --out %page.html", 1, "twice"},
           Refused{"over_the_run", "export %run --to csv --out %run", 1, "expected a folder that is no run"},
           Refused{"no_archive", "read %text %text", 1,
                   "text is of another format (no ZIP archive), expected a TorchScript archive"},
           Refused{"llc_of_nothing", "llc", 2, "RUN is missing"},
           Refused{"llc_steps", "llc --model m --data d --steps 3", 2, "--steps"},
           Refused{"llc_kind", "llc %run --kind best", 2, "best"},
           Refused{"llc_unlogged", "llc --model m --data d --read", 2, "--read"},
           Refused{"no_model", "llc %run", 1, "has no model.pt"},
           Refused{"no_snapshots", "llc %run --model %text --data %text", 1, "has no snapshots"},
           Refused{"no_file", "read %nothing %text", 1, "there is no such file"},
           Refused{"rank", "lambda linear 4 4 --rank 5", 1, "5"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ToolTest, AttachTakesNoMemoryForWhatAProgramOnlyTellsOf) {
  Elf64_Ehdr header = {};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_phoff = sizeof header;
  header.e_phnum = 1;
  Elf64_Phdr segment = {};
  segment.p_type = PT_INTERP;
  segment.p_filesz = std::uint64_t{1} << 40;
  std::string program(sizeof header + sizeof segment, '\0');
  std::memcpy(program.data(), &header, sizeof header);
  std::memcpy(program.data() + sizeof header, &segment, sizeof segment);
  test::put(path("program"), program);
  fs::permissions(path("program"), fs::perms::owner_exec, fs::perm_options::add);
  const Result result = dds("attach --list -- " + file("program"));
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.error.find("asks for a loader by a path of 1099511627776 bytes"), std::string::npos) << result.error;
}

class ToolHelp : public ToolTest, public testing::WithParamInterface<const char*> {};

/// What `--help` lists first in a line.
std::set<std::string> options_in(const std::string& help) {
  std::set<std::string> options;
  const std::regex option("\n  (?:-h,)?(--[a-z-]+)");
  for (std::sregex_iterator at(help.begin(), help.end(), option), end; at != end; ++at) options.insert((*at)[1]);
  return options;
}

TEST_P(ToolHelp, HasExamplesAndItsOptionsAreCompleted) {
  const Result help = dds(std::string(GetParam()) + " --help");
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.error, "");
  EXPECT_NE(help.out.find(std::string("\n  dds ") + GetParam()), std::string::npos) << help.out;

  const Result completed = shell("bash -c " + quoted("source " + std::string(test::kCompletion) + "; COMP_WORDS=(dds " +
                                                     GetParam() + " --); COMP_CWORD=2; _dds; echo ${COMPREPLY[*]}"));
  std::set<std::string> words;
  std::istringstream stream(completed.out);
  for (std::string word; stream >> word;) words.insert(word);
  if (GetParam() == std::string("lambda")) words.erase("--density"), words.erase("--rank");  // of its subcommands
  EXPECT_EQ(words, options_in(help.out)) << completed.error;
}

INSTANTIATE_TEST_SUITE_P(Commands, ToolHelp,
                         Values("attach", "read", "llc", "report", "compare", "watch", "lambda", "export"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(ToolTest, HelpListsEveryCommandAndTheExitCodes) {
  const Result help = dds("--help");
  EXPECT_EQ(help.code, 0);
  for (const char* text :
       {"attach", "read", "llc", "report", "compare", "watch", "lambda", "export", "Exit codes: 0", " 1 ", " 2 "})
    EXPECT_NE(help.out.find(text), std::string::npos) << text;
  EXPECT_TRUE(std::regex_match(dds("--version").out, std::regex("\\d+\\.\\d+\\.\\d+\n")));
}

/// Two linear layers, as `torch.jit.script` of such a module in Python leaves them.
torch::jit::Module small_script(bool trained = false) {
  torch::manual_seed(3);
  torch::jit::Module model("Net");
  model.register_parameter("first", torch::randn({5, 4}).requires_grad_(trained), false);
  model.register_parameter("second", torch::randn({3, 5}).requires_grad_(trained), false);
  model.define(R"(
    def forward(self, x):
        return torch.matmul(torch.tanh(torch.matmul(x, self.first.t())), self.second.t())
  )");
  return model;
}

// ---- streams that are full or closed ----

class ToolStreams : public ToolTest, public testing::WithParamInterface<const char*> {
 protected:
  /// `dds` with streams redirected by itself.
  Result dds(const std::string& arguments_and_streams) const {
    return shell("( " + quoted(test::kTool) + " " +
                 std::regex_replace(arguments_and_streams, std::regex("%"), path("").string()) + " )");
  }
};

TEST_P(ToolStreams, AnOutputThatIsNotTakenIsAnError) {
  write_run("run");
  write_run("other");
  small_script().save(path("model.pt").string());
  torch::save(torch::randn({20, 4}), path("data.pt").string());
  const Result full = dds(std::string(GetParam()) + " >/dev/full");
  EXPECT_EQ(full.code, 1);
  EXPECT_TRUE(full.error.starts_with("dds: error: cannot write to the standard output: ")) << full.error;
  EXPECT_EQ(std::count(full.error.begin(), full.error.end(), '\n'), 1) << full.error;
}

INSTANTIATE_TEST_SUITE_P(Commands, ToolStreams,
                         Values("--version", "--help", "read --help", "lambda regular 3", "report %run",
                                "compare %run %other", "watch %run", "export %run --to csv --out %tables",
                                "read %model.pt %data.pt"));

TEST_F(ToolStreams, AnErrorThatCannotBeToldKeepsItsExitCode) {
  EXPECT_EQ(dds("watch %nowhere 2>&-").code, 1);
  EXPECT_EQ(dds("watch %nowhere 2>/dev/full").code, 1);
  EXPECT_EQ(dds("frobnicate 2>&- >&- <&-").code, 2);
  EXPECT_EQ(dds("lambda regular 3 >/dev/full 2>&-").code, 1);
  EXPECT_EQ(dds("lambda regular 3 2>&-").code, 0);
}

TEST_F(ToolStreams, WhatIsPrintedGoesIntoNoFile) {
  small_script().save(path("model.pt").string());
  torch::save(torch::randn({20, 4}), path("data.pt").string());
  EXPECT_EQ(dds("read %model.pt %data.pt --out %run >&-").code, 1);
  EXPECT_EQ(dds("read %model.pt %data.pt --out %whole").code, 0);
  EXPECT_EQ(log::read_run(path("run")).signatures.size(), log::read_run(path("whole")).signatures.size());
  for (const auto& entry : fs::directory_iterator(path("run")))
    EXPECT_EQ(content(entry.path()).find("samples, likelihood"), std::string::npos) << entry.path();
}

// ---- dds lambda ----

TEST_F(ToolTest, LambdaGivesTheClosedForms) {
  const auto lines = [](const LearningCoefficient& c) {
    std::ostringstream text;
    text << "lambda " << c.lambda << "\nmultiplicity " << c.multiplicity << "\n";
    return text.str();
  };
  EXPECT_EQ(dds("lambda regular 7").out, lines(regular_coefficient(7)));
  const std::vector<std::int64_t> k = {1, 2}, h = {0, 1}, widths = {20, 18, 20, 22};
  EXPECT_EQ(dds("lambda crossing 1 2 --density 0 1").out, lines(normal_crossing_coefficient(k, h)));
  EXPECT_EQ(dds("lambda reduced-rank 10 3 5 --rank 2").out, lines(reduced_rank_coefficient(10, 3, 5, 2)) + "case 3\n");
  EXPECT_EQ(dds("lambda linear 20 18 20 22 --rank 16").out, lines(deep_linear_coefficient(widths, 16)));
}

// ---- dds read ----

/// Ways to lay down inputs and targets in a file.
using Save = void (*)(const at::Tensor& x, const at::Tensor& y, const std::string& path);

void pickle(const c10::IValue& value, const std::string& path) {
  const std::vector<char> bytes = torch::pickle_save(value);
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

struct Layout {
  const char* name;
  Save save;
  const char* arguments;
};

class ToolReads : public ToolTest, public testing::WithParamInterface<Layout> {};

TEST_P(ToolReads, WhatTheLibraryReads) {
  torch::jit::Module script = small_script();
  script.save(path("model.pt").string());
  const at::Tensor x = torch::randn({20, 4}), y = torch::randint(0, 3, {20}, torch::kLong);
  GetParam().save(x, y, path("data.pt").string());

  const Result result = dds("read " + file("model.pt") + " " + file("data.pt") + " --spectra --step 7 --out " +
                            file("run") + " " + GetParam().arguments);
  ASSERT_EQ(result.code, 0) << result.error;
  const log::Run run = log::read_run(path());
  const ScriptModel model = script_model(script);
  const auto expected = read({*model.module, categorical(), Data(x, y), model.forward},
                             ReadOptions().signatures(SignatureOptions().spectra(true)));
  ASSERT_EQ(run.signatures.size(), 4u) << result.out;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(run.signatures[i].layer, expected[i].layer);
    EXPECT_EQ(run.signatures[i].side, expected[i].side);
    EXPECT_EQ(run.signatures[i].step, 7);
    EXPECT_EQ(run.signatures[i].spectrum, expected[i].spectrum);
    EXPECT_EQ(run.signatures[i].fisher_kind, expected[i].fisher_kind);
  }
  EXPECT_TRUE(row_with(result.out, "first Raw activation - 20 5 ").ends_with(" ok")) << result.out;
  EXPECT_EQ(test::described(run, "likelihood"), "categorical");
}

INSTANTIATE_TEST_SUITE_P(Layouts, ToolReads,
                         Values(Layout{"cpp_vector",
                                       [](const at::Tensor& x, const at::Tensor& y, const std::string& path) {
                                         torch::save(std::vector<at::Tensor>{x, y}, path);
                                       },
                                       ""},
                                Layout{"cpp_by_name",
                                       [](const at::Tensor& x, const at::Tensor& y, const std::string& path) {
                                         torch::serialize::OutputArchive archive;
                                         archive.write("targets", y);
                                         archive.write("x", x);
                                         archive.save_to(path);
                                       },
                                       ""},
                                Layout{"python_list",
                                       [](const at::Tensor& x, const at::Tensor& y, const std::string& path) {
                                         pickle(c10::List<at::Tensor>({x, y}), path);
                                       },
                                       "--likelihood categorical"},
                                Layout{"python_tuple",
                                       [](const at::Tensor& x, const at::Tensor& y, const std::string& path) {
                                         pickle(c10::ivalue::Tuple::create({x, y}), path);
                                       },
                                       "--input 0 --targets 1"},
                                Layout{"python_dict",
                                       [](const at::Tensor& x, const at::Tensor& y, const std::string& path) {
                                         c10::impl::GenericDict dict(c10::StringType::get(), c10::TensorType::get());
                                         dict.insert("label", y);
                                         dict.insert("image", x);
                                         pickle(dict, path);
                                       },
                                       "--targets label"}),
                         [](const auto& info) { return info.param.name; });

TEST_F(ToolTest, ReadTakesTheForwardPassOnlyWhereNothingTellsALikelihood) {
  small_script().save(path("model.pt").string());
  torch::save(torch::randn({20, 4}), path("data.pt").string());
  const Result result = dds("read " + file("model.pt") + " " + file("data.pt"));
  EXPECT_EQ(result.code, 0) << result.error;
  EXPECT_NE(result.out.find("likelihood none"), std::string::npos);
  EXPECT_EQ(result.out.find("fisher "), result.out.find("fisher  ")) << "a column, and no row: " << result.out;
  EXPECT_EQ(dds("read " + file("model.pt") + " " + file("data.pt") + " --side fisher").code, 1);
  EXPECT_NE(dds("read " + file("model.pt") + " " + file("data.pt") + " --input pixels").error.find("there are: 0"),
            std::string::npos);
}

// ---- what a file is, and what was taken for what ----

TEST_F(ToolTest, WhatIsNoTensorIsNamed) {
  small_script().save(path("model.pt").string());
  const at::Tensor x = torch::randn({20, 4}), y = torch::randint(0, 3, {20}, torch::kLong);
  const auto dict = [](const std::vector<std::pair<std::string, c10::IValue>>& entries) {
    c10::impl::GenericDict dict(c10::StringType::get(), c10::AnyType::get());
    for (const auto& [name, value] : entries) dict.insert(name, value);
    return dict;
  };
  const auto read = [&](const c10::IValue& value, const std::string& arguments = "") {
    pickle(value, path("data.pt").string());
    return dds("read " + file("model.pt") + " " + file("data.pt") + " " + arguments);
  };
  const c10::List<std::int64_t> list({0, 1, 2});
  EXPECT_NE(read(dict({{"x", x}, {"targets", list}})).error.find("data: 'targets' is a list, expected a tensor"),
            std::string::npos);
  EXPECT_NE(read(dict({{"x", x}, {"y", list}}), "--targets y").error.find("'y' is a list, expected"),
            std::string::npos);
  const Result beside = read(dict({{"epoch", 3}, {"x", x}, {"targets", y}}));
  EXPECT_NE(
      beside.out.find("\ninputs: x (Float [20, 4]); targets: targets (Long [20]); not used: epoch (of type Int)\n"),
      std::string::npos)
      << beside.out << beside.error;
  EXPECT_NE(
      read(dict({{"epoch", 3}})).error.find("is without a tensor ('epoch' in it is of type Int), expected tensors"),
      std::string::npos);
  EXPECT_NE(read(c10::ivalue::Tuple::create({x, list})).error.find("is a list whose entry 1 is a list, expected"),
            std::string::npos);
  c10::impl::GenericDict numbered(c10::IntType::get(), c10::AnyType::get());
  numbered.insert(0, x);
  const Result by_number = read(numbered, "--side activation");
  EXPECT_NE(by_number.out.find("\ninputs: 0 (Float [20, 4]); targets: none\n"), std::string::npos)
      << by_number.out << by_number.error;
  c10::impl::GenericDict fractions(c10::FloatType::get(), c10::AnyType::get());
  fractions.insert(0.5, x);
  EXPECT_NE(read(fractions).error.find("without a tensor ('a key of type Double' in it is a tensor), expected tensors"),
            std::string::npos);
  const Result network = dds("read " + file("model.pt") + " " + file("model.pt"));
  EXPECT_NE(network.error.find("is a network: TorchScript with a forward, expected tensors"), std::string::npos)
      << network.error;
  test::put(path("data.pt"), "\x93NUMPY");
  const Result array = dds("read " + file("model.pt") + " " + file("data.pt"));
  EXPECT_NE(array.error.find("data.pt is a NumPy array (.npy), expected tensors: one, a list of them"),
            std::string::npos)
      << array.error;
}

TEST_F(ToolTest, TheTypeOfTargetsTellsTheLikelihood) {
  small_script().save(path("model.pt").string());
  const at::Tensor x = torch::randn({20, 4}), y = torch::randint(0, 3, {20}, torch::kLong);
  const auto read = [&](const at::Tensor& targets, const std::string& arguments = "") {
    pickle(c10::ivalue::Tuple::create({x, targets}), path("data.pt").string());
    return dds("read --empirical " + file("model.pt") + " " + file("data.pt") + arguments);
  };
  const Result expected = read(y);
  ASSERT_EQ(expected.code, 0) << expected.error;
  const auto table = [](const std::string& out) { return out.substr(out.find("\n\n")); };
  for (const at::ScalarType type : {torch::kInt, torch::kShort, torch::kByte, torch::kChar}) {
    const Result result = read(y.to(type));
    EXPECT_NE(result.out.find("likelihood categorical"), std::string::npos) << result.out << result.error;
    EXPECT_EQ(table(result.out), table(expected.out));
  }
  EXPECT_NE(read(torch::rand({20, 3}) > 0.5).out.find("likelihood bernoulli"), std::string::npos);
  EXPECT_NE(read(torch::rand({20, 3})).out.find("likelihood gaussian(1)"), std::string::npos);
  EXPECT_NE(read(y.to(torch::kInt).unsqueeze(1).expand({20, 3}), " --likelihood gaussian").out.find("gaussian(1)"),
            std::string::npos);
}

TEST_F(ToolTest, ATupleMayHoldTwoInputs) {
  torch::jit::Module model("Two");
  model.register_parameter("w", torch::randn({3, 4}), false);
  model.define("def forward(self, a, b):\n    return torch.matmul(a + b, self.w.t())\n");
  model.save(path("two.pt").string());
  pickle(c10::ivalue::Tuple::create({torch::randn({20, 4}), torch::randn({20, 4})}), path("data.pt").string());
  const Result both = dds("read " + file("two.pt") + " " + file("data.pt") + " --input 0 --input 1");
  EXPECT_EQ(both.code, 0) << both.error;
  EXPECT_NE(both.out.find("\ninputs: 0 (Float [20, 4]), 1 (Float [20, 4]); targets: none\n"), std::string::npos)
      << both.out;
  const Result one = dds("read " + file("two.pt") + " " + file("data.pt"));
  EXPECT_EQ(one.code, 1);
  EXPECT_NE(one.error.find("inputs: 0 (Float [20, 4]); targets: 1 (Float [20, 4])"), std::string::npos) << one.error;
}

TEST_F(ToolTest, WhatIsThereIsNotWrittenOver) {
  write_run("run");
  const std::string csv = "export " + file("run") + " --to csv --out " + file("tables");
  EXPECT_EQ(dds(csv).code, 0);
  test::put(path("tables") / "llc.csv", "mine");
  fs::remove(path("tables") / "signatures.csv");
  const Result refused = dds(csv);
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.error.find("llc.csv', expected one that is not there yet, or --overwrite"), std::string::npos)
      << refused.error;
  EXPECT_EQ(content(path("tables") / "llc.csv"), "mine");
  EXPECT_FALSE(fs::exists(path("tables") / "signatures.csv")) << "all or nothing";
  EXPECT_EQ(dds(csv + " --overwrite").code, 0);
  EXPECT_NE(content(path("tables") / "llc.csv"), "mine");

  const std::string events = "export " + file("run") + " --to tensorboard --out " + file("tb");
  EXPECT_EQ(dds(events).code, 0);
  EXPECT_EQ(dds(events).code, 1) << "every curve would be drawn twice";

  test::put(path("notes.html"), "mine");
  const std::string report = "report " + file("run") + " --out " + file("notes.html");
  EXPECT_EQ(dds(report).code, 1);
  EXPECT_EQ(content(path("notes.html")), "mine");
  EXPECT_EQ(dds(report + " --overwrite").code, 0);
  EXPECT_EQ(dds(report).code, 0) << "a page of ours";

  small_script().save(path("model.pt").string());
  torch::save(torch::randn({20, 4}), path("data.pt").string());
  const Result read = dds("read " + file("model.pt") + " " + file("data.pt") + " --out " + file("run"));
  EXPECT_EQ(read.code, 1);
  EXPECT_NE(read.error.find("expected an empty folder, or one that is not there yet (this one holds "),
            std::string::npos)
      << read.error;
}

// ---- dds llc ----

/// A network of which a run has snapshots: where they are, how many columns `first` has in them, and what the names
/// have before them.
class ToolLlc : public ToolTest {
 protected:
  void SetUp() override {
    ToolTest::SetUp();
    script_.save(path("model.pt").string());
    torch::manual_seed(8);
    x_ = torch::randn({40, 4});
    y_ = torch::randint(0, 3, {40}, torch::kLong);
    pickle(c10::ivalue::Tuple::create({x_, y_}), path("data.pt").string());
    write_run("run");
    fs::create_directory(path("run/snapshots"));
  }
  /// `prefix`: what the names have before them; `columns`: of `first`, which is returned.
  at::Tensor snapshot(std::int64_t step, const std::string& prefix = "", std::int64_t columns = 4) const {
    const at::Tensor first = torch::full({5, columns}, 0.1 * static_cast<double>(step + 1));
    c10::impl::GenericDict dict(c10::StringType::get(), c10::TensorType::get());
    dict.insert(prefix + "first", first);
    dict.insert(prefix + "second", script_.attr("second").toTensor());
    dict.insert(std::string("other"), torch::ones({2}));
    pickle(dict, path(fmt::format("run/snapshots/{}.pt", step)).string());
    return first;
  }
  LlcEstimate expected(const at::Tensor& first, LlcOptions options) const {
    const torch::jit::Module script = script_.deepcopy();
    {
      const at::NoGradGuard no_grad;
      script.attr("first").toTensor().copy_(first);
    }
    const ScriptModel model = script_model(script);
    return estimate_llc({*model.module, categorical(), Data(x_, y_), model.forward}, options);
  }
  std::string model_and_data() const { return "--model " + file("model.pt") + " --data " + file("data.pt"); }

  torch::jit::Module script_ = small_script(/*trained=*/true);
  at::Tensor x_, y_;
};

TEST_F(ToolLlc, OfAModelIsThatOfTheLibrary) {
  const auto options = LlcOptions().max_gradients(1500).seed(3).kind(LlcKind::Tilted).parameters({"sec*"});
  const LlcEstimate own = expected(script_.attr("first").toTensor(), options);
  const Result result = dds("llc " + model_and_data() +
                            " --max-gradients 1500 --seed 3 --kind tilted --parameters 'sec*' --out " + file("llc"));
  ASSERT_EQ(result.code, own.converged() ? 0 : 1) << result.error;
  const log::Run run = log::read_run(path("llc"));
  ASSERT_EQ(run.estimates.size(), 1u);
  EXPECT_EQ(run.estimates[0].lambda, own.lambda);
  EXPECT_EQ(run.estimates[0].standard_error, own.standard_error);
  EXPECT_EQ(run.estimates[0].verdict(), own.verdict());
  EXPECT_EQ(run.estimates[0].settings.parameters, 15);
  EXPECT_EQ(run.estimates[0].kind, LlcKind::Tilted);
  EXPECT_EQ(test::described(run, "llc")["likelihood"], "categorical");
  EXPECT_NE(result.out.find("40 samples, likelihood categorical, tilted estimator (ours"), std::string::npos);
}

TEST_F(ToolLlc, OfARegularModelIsHalfItsParametersAndConverged) {
  torch::jit::Module line("Line");
  line.register_parameter("w", torch::randn({4, 1}, torch::kDouble).requires_grad_(), false);
  line.define("def forward(self, x):\n    return torch.matmul(x, self.w)\n");
  line.save(path("line.pt").string());
  const at::Tensor x = torch::randn({400, 4}, torch::kDouble);
  pickle(c10::ivalue::Tuple::create({x, x.matmul(line.attr("w").toTensor()).detach()}), path("line_data.pt").string());
  const Result result =
      dds("llc --model " + file("line.pt") + " --data " + file("line_data.pt") + " --seed 1 --out " + file("line"));
  ASSERT_EQ(result.code, 0) << result.error;
  const log::Run run = log::read_run(path("line"));
  ASSERT_EQ(run.estimates.size(), 1u);
  EXPECT_TRUE(run.estimates[0].converged()) << result.out;
  EXPECT_NEAR(*run.estimates[0].lambda, 2, 4 * *run.estimates[0].standard_error + 0.02);
  const std::string row = row_with(result.out, " 0 ");
  EXPECT_TRUE(std::regex_search(row, std::regex("^ 0 [0-9.]+ \\[[0-9.]+, [0-9.]+\\] .* converged$"))) << row;
  EXPECT_EQ(result.out.find("refused"), std::string::npos);
}

// sum (w - a)^2 / 2 with w away from a: no minimum, until it has settled.
TEST_F(ToolLlc, SettlesFirstWhereItIsAsked) {
  torch::jit::Module line("Line");
  line.register_parameter("w", torch::randn({4, 1}, torch::kDouble).requires_grad_(), false);
  line.define("def forward(self, x):\n    return torch.matmul(x, self.w)\n");
  line.save(path("line.pt").string());
  const at::Tensor x = torch::randn({400, 4}, torch::kDouble);
  pickle(c10::ivalue::Tuple::create({x, x.matmul(line.attr("w").toTensor() + 0.3).detach()}),
         path("line_data.pt").string());
  const std::string call = "llc --model " + file("line.pt") + " --data " + file("line_data.pt") + " --seed 1";
  const Result as_it_is = dds(call);
  EXPECT_EQ(as_it_is.code, 1) << as_it_is.out;
  EXPECT_NE(as_it_is.out.find("no minimum"), std::string::npos) << as_it_is.out;
  const Result settled = dds(call + " --settle --batch-size 400 --out " + file("settled"));
  ASSERT_EQ(settled.code, 0) << settled.out << settled.error;
  const LlcEstimate estimate = log::read_run(path("settled")).estimates.at(0);
  EXPECT_NEAR(*estimate.lambda, 2, 4 * *estimate.standard_error + 0.02);
}

TEST_F(ToolLlc, OfSnapshotsIsThatOfTheirWeightsAndIsAppendedToTheRun) {
  std::map<std::int64_t, at::Tensor> weights;
  for (const std::int64_t step : {0, 10, 20, 100}) weights[step] = snapshot(step, "module.");
  const Result result = dds("llc " + file("run") + " " + model_and_data() + " --steps 10,100 --max-gradients 1500");
  const log::Run run = log::read_run(path("run"));
  ASSERT_EQ(run.estimates.size(), 3u + 2) << result.error;
  EXPECT_EQ(result.code, run.estimates[3].converged() || run.estimates[4].converged() ? 0 : 1);
  for (const std::int64_t step : {10, 100}) {
    const LlcEstimate& found = run.estimates[step == 10 ? 3 : 4];
    const LlcEstimate own = expected(weights[step], LlcOptions().max_gradients(1500));
    EXPECT_EQ(found.step, step);
    EXPECT_EQ(found.lambda, own.lambda);
    EXPECT_EQ(found.verdict(), own.verdict());
  }
  EXPECT_EQ(run.signatures.size(), 7u) << "what was there is there";

  dds("llc " + file("run") + " " + model_and_data() + " --every 3 --max-gradients 300 --out " + file("own"));
  const log::Run own = log::read_run(path("own"));
  ASSERT_EQ(own.estimates.size(), 2u);
  EXPECT_EQ(own.estimates[1].step, 100);
  EXPECT_NE(dds("compare " + file("run") + " " + file("own")).out.find("plain"), std::string::npos);
}

TEST_F(ToolLlc, WhatWasRefusedIsNotShownAsAnLlc) {
  snapshot(0);
  const Result result = dds("llc " + file("run") + " " + model_and_data() + " --max-gradients 60");
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.error, "dds: error: llc: no LLC was found: 1 of 1 estimates are refused\n");
  const log::Run run = log::read_run(path("run"));
  ASSERT_FALSE(run.estimates.back().converged());
  EXPECT_TRUE(std::regex_search(row_with(result.out, " 0 "), std::regex("^ 0 (\\(.*\\)|-) - "))) << result.out;
  EXPECT_NE(result.out.find(run.estimates.back().verdict()), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("1 of 1 refused: what stands in brackets is no LLC"), std::string::npos) << result.out;
}

TEST_F(ToolLlc, SaysWhatDoesNotFit) {
  const auto says = [&](const std::string& arguments, const std::string& text) {
    const std::size_t rows = log::read_run(path("run")).estimates.size();
    const Result result = dds("llc " + file("run") + " " + model_and_data() + " --max-gradients 60 " + arguments);
    EXPECT_EQ(result.code, 1);
    EXPECT_NE(result.error.find(text), std::string::npos) << result.error;
    EXPECT_EQ(log::read_run(path("run")).estimates.size(), rows);
  };
  snapshot(1);
  says("--steps 2", "--steps is 2, expected one of 1");
  snapshot(0, "", 3);
  says("", "0.pt', expected one that fits the model: 'first' is Float [5x3], the model's Float [5x4]");
  snapshot(0, "net.", 3);
  says("", "0.pt', expected one that fits the model: 'net.first' is Float [5x3], the model's Float [5x4]");
  c10::impl::GenericDict dict(c10::StringType::get(), c10::TensorType::get());
  dict.insert(std::string("first"), script_.attr("first").toTensor());
  pickle(dict, path("run/snapshots/0.pt").string());
  says("", "0.pt', expected one that fits the model: the model's 'second' is not in it");
  for (const char* prefix : {"a.", "b."}) {
    dict.insert(std::string(prefix) + "first", script_.attr("first").toTensor());
    dict.insert(std::string(prefix) + "second", script_.attr("second").toTensor());
  }
  pickle(dict, path("run/snapshots/0.pt").string());
  says("", "0.pt', expected one that fits the model once, not under a. and b.");
  pickle(x_, path("data.pt").string());
  snapshot(0);
  says("", "expected a file that has targets, which an LLC needs (inputs: 0 (Float [40, 4]); targets: none)");
}

// ---- dds compare, watch, export, report ----

TEST_F(ToolTest, CompareSetsTheLastCommonStepSideBySide) {
  write_run("a");
  write_run("b", 0.25);
  log::directory(path("b"), {.resume = true})->write(signature(30));
  const Result result = dds("compare " + file("a") + " " + file("b"));
  EXPECT_EQ(result.code, 0) << result.error;
  EXPECT_EQ(row_with(result.out, "fc1, activation"),
            "fc1, activation side (read) 20 0.1* 0.1* -6.5 -6.25 +0.25 +0.25 1 1");
  EXPECT_EQ(row_with(result.out, "head, activation"), "head, activation side (read) 20 - - - - - - - -");
  EXPECT_EQ(row_with(result.out, "plain 20"), "plain 20 29.75 29.75 +0 0.4243 converged converged");
  EXPECT_EQ(row_with(result.out, "loss 20"), "loss 20 0.04762 0.04762 +0");
  EXPECT_EQ(row_with(dds("compare --step 15 " + file("a") + " " + file("b")).out, "fc1, activation"),
            "fc1, activation side (read) 10 0.1 0.1 -5.5 -5.25 +0.25 +0.25 0 0");
  log::directory(path("b"), {.resume = true})->write(signature(20, "fc9"));
  EXPECT_NE(dds("compare " + file("a") + " " + file("b")).out.find("only in B: fc9, activation side (read)"),
            std::string::npos);
}

TEST_F(ToolTest, WatchPrintsItsTableOnceIntoAPipe) {
  write_run("run");
  const Result result = dds("watch " + file("run"));
  EXPECT_EQ(result.code, 0) << result.error;
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos) << "no control sequences";
  EXPECT_NE(
      result.out.find("step 20   7 readings, 3 LLC estimates\nloss 0.04762\nLLC at step 20: 29.75 +- 0.3 (converged)"),
      std::string::npos)
      << result.out;
  EXPECT_EQ(row_with(result.out, "fc1 "), "fc1 activation read 20 0.1* -6.5 -3.1 10 10 1 ok");
  EXPECT_EQ(row_with(result.out, "head "), "head activation read 20 - - - - - - non_finite");
  EXPECT_EQ(dds("watch --once " + file("run")).out, result.out);
}

/// What `dds watch` draws on a terminal of this size, without control sequences. Empty without util-linux's `script`.
class ToolWatch : public ToolTest {
 protected:
  std::string screen(const std::string& run, int columns, int lines) const {
    // `script` gives the tool a terminal; Ctrl-C comes as the byte that a key press is, once the table is there.
    if (std::system("command -v script >/dev/null") != 0) return "";
    const Result result = shell(
        fmt::format("(for i in $(seq 600); do grep -q 'Ctrl-C ends' {} && break; sleep 0.05; done; printf '\\003') | "
                    "script -qec \"stty cols {} rows {}; exec {} watch {}\" /dev/null",
                    file("out"), columns, lines, test::kTool, file(run)));
    EXPECT_EQ(result.code, 0) << result.out << result.error;
    EXPECT_NE(result.out.find("\x1b[?25h"), std::string::npos) << "the cursor is shown again";
    const std::size_t begin = result.out.find("\x1b[2J"), end = result.out.find("Ctrl-C ends.");
    if (begin == std::string::npos || end == std::string::npos) return "";
    return std::regex_replace(result.out.substr(begin + 4, end - begin - 4), std::regex("\r"), "");
  }
};

TEST_F(ToolWatch, FitsTheTerminalWithTheWorstFirst) {
  const auto sink = log::directory(path("run"));
  for (int layer = 0; layer < 40; ++layer) {
    Signature s = signature(7, fmt::format("transformer.blocks.{}.attention.projection_of_all_heads", layer));
    s.dead_directions = layer == 23 ? 5 : layer == 31 ? 2 : 0;
    s.sigma_min_plus = layer == 11 ? 0.2 : 1;
    sink->write(s);
  }
  sink->write(estimate(7));
  const std::string text = screen("run", 80, 24);
  if (text.empty()) GTEST_SKIP() << "util-linux's script is not installed";
  std::istringstream lines(text);
  std::vector<std::string> all;
  for (std::string line; std::getline(lines, line);) {
    std::size_t characters = 0;
    for (const char c : line) characters += (c & 0xC0) != 0x80;
    EXPECT_LE(characters, 80U) << line;
    all.push_back(line);
  }
  ASSERT_LE(all.size(), 23U) << text;
  ASSERT_GE(all.size(), 20U) << text;
  EXPECT_NE(all[0].find("step 7"), std::string::npos) << text;
  EXPECT_EQ(all[1].find("LLC at step 7"), 0U) << text;
  EXPECT_NE(all[4].find("\u202623\u2026 "), std::string::npos) << text;
  EXPECT_NE(all[5].find("\u202631\u2026 "), std::string::npos) << text;
  EXPECT_NE(all[6].find("\u202611\u2026 "), std::string::npos) << text;
  EXPECT_NE(all[3].find("step"), std::string::npos) << "short names leave room for columns\n" << text;
  EXPECT_NE(text.find("more, none of them worse"), std::string::npos) << text;
}

TEST_F(ToolTest, NamesOutOfALogDoNotCommandTheTerminal) {
  const std::string evil =
                        "fc\x1b]52;c;AAAA\x07\xc2\x9b"
                        "31m\x7f\u00e9\n",
                    shown = "fc?]52;c;AAAA??31m?\u00e9?";
  for (const char* run : {"run", "other"}) {
    const auto sink = log::directory(path(run));
    sink->write(signature(run[0] == 'r' ? 1 : 2, evil));
    sink->write(signature(1, run + evil));
    sink->write(Metric{1, run + evil, 0.5});
    LlcEstimate refused = estimate(1);
    refused.failures = {evil};
    sink->write(refused);
  }
  const auto controls = [](const std::string& text) {
    return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xE0) == 0 || c == 0x7F; }) -
           std::count(text.begin(), text.end(), '\n') + (text.find("\xc2\x9b") == std::string::npos ? 0 : 1);
  };
  const Result watched = dds("watch " + file("run"));
  EXPECT_EQ(controls(watched.out), 0) << watched.out;
  EXPECT_EQ(row_with(watched.out, "fc"), shown + " activation read 1 0.1 -4.7 -3.1 10 10 0 ok");
  EXPECT_NE(watched.out.find("run" + shown + " 0.5\nLLC at step 1: 10.75 +- 0.3 (" + shown + ")\n"), std::string::npos)
      << watched.out;
  const Result compared = dds("compare " + file("run") + " " + file("other"));
  EXPECT_EQ(controls(compared.out), 0) << compared.out;
  EXPECT_NE(compared.out.find("no step in common: " + shown), std::string::npos) << compared.out;
  EXPECT_NE(compared.out.find("only in A: run" + shown), std::string::npos) << compared.out;

  test::put(path("run") / "metrics.csv", "a\x1b]0;b\x07\n");
  const Result refused = dds("watch " + file("run"));
  EXPECT_EQ(controls(refused.error), 0) << refused.error;
  EXPECT_NE(refused.error.find("column 'a?]0;b?' is not known"), std::string::npos) << refused.error;
}

TEST_F(ToolTest, ExportJoinsTheRowsOfRunsAsCsvAndJsonLines) {
  write_run("a");
  write_run("b", 1);
  const std::string runs = file("a") + " " + file("b");
  EXPECT_EQ(dds("export " + runs + " --to csv --out " + file("csv")).code, 0);
  EXPECT_EQ(dds("export " + runs + " --to jsonl --out " + file("jsonl")).code, 0);
  const log::Run a = log::read_run(path("a")), b = log::read_run(path("b"));
  const std::string signatures = content(path("csv") / "signatures.csv");
  const auto table = log::csv::parse(signatures).records;
  ASSERT_EQ(table.size(), 1 + a.signatures.size() + b.signatures.size());
  EXPECT_EQ(table[0].fields[0], "run");
  const auto single = log::csv::parse(content(path("a") / "signatures.csv")).records;
  for (std::size_t i = 1; i < single.size(); ++i) {
    EXPECT_EQ(table[i].fields[0], "a");
    EXPECT_TRUE(std::equal(single[i].fields.begin(), single[i].fields.end(), table[i].fields.begin() + 1));
  }
  std::istringstream lines(content(path("jsonl") / "signatures.jsonl"));
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(objects.size(), a.signatures.size() + b.signatures.size());
  EXPECT_EQ(objects.back()["run"], "b");
  EXPECT_EQ(objects.back()["layer"], "head");
  EXPECT_TRUE(objects.back()["sigma_min"].is_null());
  EXPECT_EQ(objects.front()["spectrum"], signature(0).spectrum);
  EXPECT_EQ(std::count(signatures.begin(), signatures.end(), '\n'), static_cast<std::ptrdiff_t>(table.size()));
  for (const char* name : {"llc", "metrics"}) {
    EXPECT_EQ(log::csv::parse(content(path("csv") / (name + std::string(".csv")))).records.size(), 7u);
    const std::string text = content(path("jsonl") / (name + std::string(".jsonl")));
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
  }
}

TEST_F(ToolTest, ExportKeepsRunsOfOneNameApart) {
  write_run("x/run");
  write_run("y/run");
  EXPECT_EQ(dds("export " + file("x/run") + " " + file("y/run") + " --to tensorboard --out " + file("tb")).code, 0);
  for (const char* run : {"x/run", "y/run"}) EXPECT_FALSE(fs::is_empty(path("tb") / run));
}

TEST_F(ToolTest, ReportPutsRunsOnOnePageAndPrintsItsPath) {
  write_run("a");
  write_run("b");
  const Result one = dds("report " + file("a")),
               two = dds("report " + file("a") + " " + file("b") + " --out " + file("two.html"));
  EXPECT_EQ(one.out, (path("a") / "report.html").string() + "\n");
  EXPECT_EQ(two.out, path("two.html").string() + "\n");
  EXPECT_NE(content(path("two.html")).find("\"name\":\"b\""), std::string::npos);
}

TEST_F(ToolTest, FiguresAreWholePicturesOfWhatThereIs) {
  if (std::system("command -v gnuplot >/dev/null") != 0) GTEST_SKIP() << "./tests/run --readers installs gnuplot";
  write_run("a");
  write_run("it's `b`");  // names are text, and nothing that runs
  const std::string runs = file("a") + " \"" + path("it's ").string() + "\\`b\\`\"";
  const auto names = {"sigma_min",       "heat_sigma_min",       "lambda_min_plus",
                      "dead_directions", "heat_dead_directions", "llc"};
  const Result svg = dds("report " + runs + " --figures " + file("svg"));
  EXPECT_EQ(svg.code, 0) << svg.error;
  for (const std::string name : names) {
    const std::string picture = content(path("svg") / (name + ".svg"));
    EXPECT_TRUE(picture.starts_with("<?xml")) << name;
    EXPECT_TRUE(picture.find("</svg>") != std::string::npos) << name;
    EXPECT_NE(svg.out.find("/" + name + ".svg\n"), std::string::npos) << svg.out;
  }
  EXPECT_NE(content(path("svg") / "sigma_min.svg").find("`b`"), std::string::npos);
  EXPECT_EQ(dds("report " + file("a") + " --figures " + file("png") + " --format png").code, 0);
  for (const std::string name : names)
    EXPECT_TRUE(content(path("png") / (name + ".png")).starts_with("\x89PNG")) << name;
}

TEST_F(ToolTest, FiguresShowReadsBeforeStepsOfEveryLayer) {
  {
    const auto sink = log::directory(path("run"));
    for (int i = 0; i < 3000; ++i) {  // seconds, were each layer looked for among all
      Signature s = signature(10, "layer" + std::to_string(i));
      s.source = Source::Step;
      s.sigma_min = 1e-3;
      sink->write(s);
      if (i % 2 != 0) continue;
      s.source = Source::Read;
      s.sigma_min = 1e-5;
      sink->write(s);
    }
  }
  dds("report " + file("run") + " --figures " + file("figures"));  // the script is there without gnuplot too
  const std::string script = content(path("figures") / "figures.gp");
  EXPECT_NE(script.find("set title 'layer0'"), std::string::npos);
  EXPECT_NE(script.find("<< EOD\n1 -5\nEOD"), std::string::npos) << "read";
  EXPECT_NE(script.find("<< EOD\n1 -3\nEOD"), std::string::npos) << "step, where there is no read";
  EXPECT_NE(script.find("\n0 2998 -5\n0 2999 -3\n"), std::string::npos) << "the heat map has all";

  const std::string theme = content(fs::path(test::kSourceRoot) / "src/page/theme.js");
  const std::regex color("'(#[0-9a-f]{6})'");
  std::set<std::string> colors;
  for (std::sregex_iterator at(script.begin(), script.end(), color), end; at != end; ++at) colors.insert((*at)[1]);
  EXPECT_GE(colors.size(), 8u);
  for (const std::string& one : colors) EXPECT_NE(theme.find(one), std::string::npos) << one << " is not of the pages";
}

TEST_F(ToolTest, FiguresOfARunWithoutRowsAreNone) {
  if (std::system("command -v gnuplot >/dev/null") != 0) GTEST_SKIP() << "./tests/run --readers installs gnuplot";
  log::directory(path("empty"));
  const Result result = dds("report " + file("empty") + " --figures " + file("svg"));
  EXPECT_EQ(result.code, 0) << result.error;
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace dds
