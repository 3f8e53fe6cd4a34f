// The programs in experiments/examples, each run as a user runs it: it ends well, and what it prints is so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/paths.hpp"

namespace dds::test {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

/// Runs every example in a folder of its own.
class Examples : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "dds_example_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// What it printed, line by line. Its exit status must be `status`.
  std::vector<std::string> run(const std::string& example, int status = 0) const {
    const std::string command = "cd '" + folder_.string() + "' && '" + kExamples + "/'" + example + " 2>&1";
    std::vector<std::string> lines(1);
    FILE* const pipe = popen(command.c_str(), "r");
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
      if (c == '\n') {
        lines.emplace_back();
      } else {
        lines.back() += static_cast<char>(c);
      }
    }
    lines.pop_back();
    const int ended = pclose(pipe);
    EXPECT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == status)
        << command << " ended with " << ended << " and said: " << (lines.empty() ? "" : lines.back());
    return lines;
  }

  std::string content(const std::string& file) const {
    std::ifstream stream(folder_ / file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::filesystem::path folder_;
};

/// The lines that `pattern` matches somewhere.
std::vector<std::string> matching(const std::vector<std::string>& lines, const std::string& pattern) {
  std::vector<std::string> found;
  const std::regex regex(pattern);
  for (const std::string& line : lines) {
    if (std::regex_search(line, regex)) found.push_back(line);
  }
  return found;
}

/// The numbers that stand behind `word` in the lines.
std::vector<double> numbers_behind(const std::vector<std::string>& lines, const std::string& word) {
  std::vector<double> numbers;
  for (const std::string& line : lines) {
    const std::size_t at = line.find(word);
    if (at != std::string::npos) numbers.push_back(std::strtod(line.c_str() + at + word.size(), nullptr));
  }
  return numbers;
}

TEST_F(Examples, AttachPrintsEveryLayerAndSideOfEveryDueStep) {
  const auto lines = run("attach");
  EXPECT_THAT(lines, SizeIs(4 * 2 * 2));
  EXPECT_EQ(matching(lines, "^step (0|50|100|150)  (0|2) (activation|fisher) .* ok$"), lines);
  // 32 outputs of 8 inputs and a bias have rank 9; softmax takes one dimension off the gradients of 4 logits.
  EXPECT_THAT(matching(lines, "0 activation  rank 9 of 32"), SizeIs(4));
  EXPECT_THAT(matching(lines, "2 fisher  rank 3 of 4"), SizeIs(4));
}

TEST_F(Examples, AttachIsTheSmallest) {
  std::ifstream file(std::string(kExampleSources) + "/attach.cpp");
  EXPECT_LT(std::count(std::istreambuf_iterator<char>(file), {}, '\n'), 30);
}

TEST_F(Examples, TwoNetworksHaveALogEach) {
  run("gan weights.pt run");
  for (const char* log : {"run", "run_g"})
    EXPECT_THAT(content(std::string(log) + "/signatures.csv"), HasSubstr(",Conv"));
}

TEST_F(Examples, ARecurrentNetworkHasItsLstm) {
  run("recurrent weights.pt run");
  EXPECT_THAT(content("run/signatures.csv"), HasSubstr(",lstm,LSTM,activation,step,"));
}

TEST_F(Examples, ATransformerLearnsAText) {
  const auto lines = run("transformer");
  EXPECT_THAT(numbers_behind(lines, "loss "), ElementsAre(testing::Gt(4.0), testing::Lt(3.2)));
  for (const char* layer : {"embedding", "blocks.layers.0.linear1", "blocks.layers.1.norm2", "head"}) {
    for (const char* side : {"activation", "fisher"}) {
      EXPECT_THAT(matching(lines, "^  " + std::string(layer) + " " + side + "  rank .* ok$"), SizeIs(2)) << layer;
    }
  }
}

TEST_F(Examples, ATransformerRefusesAShortText) {
  std::ofstream(folder_ / "short.txt") << "too short";
  EXPECT_THAT(run("transformer short.txt", 1), ElementsAre("short.txt: expected a text of more than 32 characters"));
}

TEST_F(Examples, ASavedModelIsReadAsItWasSaved) {
  const auto first = run("saved_model model.pt");
  EXPECT_THAT(first, SizeIs(4));
  EXPECT_EQ(matching(first, " ok$"), first);
  EXPECT_EQ(run("saved_model model.pt"), first) << "of the file alone";
}

TEST_F(Examples, ATorchScriptArchiveIsReadWithoutItsClass) {
  const auto first = run("torchscript model.pt");
  EXPECT_THAT(matching(first, "^(body|.root.) (activation|fisher)  .* ok$"), SizeIs(4));
  EXPECT_THAT(matching(first, "^body activation  rank 8 of 32 "), SizeIs(1));
  EXPECT_EQ(run("torchscript model.pt"), first) << "of the file alone";
}

TEST_F(Examples, HooksTellAndChange) {
  const auto lines = run("hooks");
  ASSERT_THAT(lines, SizeIs(3 * 4 + 1));
  const std::vector<std::string> before(lines.begin() + 1, lines.begin() + 4), after(lines.end() - 3, lines.end()),
      changed(lines.begin() + 6, lines.begin() + 9);
  EXPECT_EQ(lines[4], "  relu  needs dds::hooked");
  EXPECT_EQ(before, after);
  // What the layer itself gives is the same, and so is all before it; what comes after it is not.
  EXPECT_EQ(changed[0], before[0]);
  EXPECT_NE(changed[1], before[1]);
}

TEST_F(Examples, AnEstimateCoversTheClosedForm) {
  const auto lines = run("llc");
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_EQ(matching(lines, "; converged$"), lines);
  EXPECT_THAT(numbers_behind(lines, "in closed form"), ElementsAre(6, 5));
  std::smatch interval;
  ASSERT_TRUE(std::regex_search(lines[0], interval, std::regex(R"(\[([0-9.]+), ([0-9.]+)\])"))) << lines[0];
  EXPECT_LE(std::stod(interval[1]), 6);
  EXPECT_GE(std::stod(interval[2]), 6);
  EXPECT_LT(numbers_behind(lines, "lambda_hat").at(1), 5) << "of a localised estimate";
}

TEST_F(Examples, ThePageOnReadingHasNoNumberThatItsProgramDoesNotPrint) {
  std::ifstream file(kReadingPage);
  const std::string page((std::istreambuf_iterator<char>(file)), {});
  std::string blocks, printed, text;
  bool in_block = false;
  std::istringstream stream(page);
  for (std::string line; std::getline(stream, line);) {
    const bool begins = line.starts_with("<!-- ") && !line.starts_with("<!-- end of ");
    in_block |= begins;
    (in_block ? blocks : text) += line + "\n";
    in_block &= !line.starts_with("<!-- end of ");
  }
  for (const std::string& line : run("worked_cases")) printed += line + "\n";
  EXPECT_EQ(blocks, printed);
  const std::string prose = std::regex_replace(text, std::regex("\\$`[^`]+`\\$|fp32|fp64|log10_[a-z_]+"), "");
  EXPECT_EQ(prose.find_first_of("0123456789"), std::string::npos) << prose;
}

}  // namespace
}  // namespace dds::test
