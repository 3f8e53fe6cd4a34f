// What can be read at one sitting: no long file, and no long function.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/paths.hpp"

namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::size_t kLongestFile = 450;
constexpr std::size_t kLongestFunction = 60;
/// A line in the head of a file that has to be longer begins with it and says why.
const std::string kReason = "// Long because ";

std::vector<std::string> lines_of(const fs::path& file) {
  std::vector<std::string> lines;
  std::ifstream text(file);
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

bool gives_reason(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    if (line.rfind(kReason, 0) == 0) return true;
    if (line.rfind("//", 0) != 0) break;
  }
  return false;
}

/// "LINE: N lines" for each function that is too long. As clang-format lays it out, a function of a namespace ends with
/// a lone brace that is not indented, a member's with one that is indented by two, and its first line is the last one
/// before with that indentation.
std::vector<std::string> long_functions(const std::vector<std::string>& lines) {
  std::vector<std::string> found;
  for (const std::string& indent : {std::string(), std::string(2, ' ')}) {
    std::size_t first = 0;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string& line = lines[i];
      if (line == indent + "}" && i - first + 1 > kLongestFunction) {
        found.push_back(std::to_string(first + 1) + ": " + std::to_string(i - first + 1) + " lines");
      }
      const bool starts = line.size() > indent.size() && line.compare(0, indent.size(), indent) == 0 &&
                          line[indent.size()] != ' ' && line[indent.size()] != '}';
      if (starts) first = i;
    }
  }
  return found;
}

/// "FILE: N lines" and "FILE:LINE: N lines" for what is too long below the folders. `seen` counts the files.
std::vector<std::string> too_long(const fs::path& root, const std::vector<std::string>& folders, std::size_t& seen) {
  std::vector<std::string> found;
  for (const std::string& folder : folders) {
    for (const auto& file : fs::recursive_directory_iterator(root / folder)) {
      if (file.path().extension() != ".cpp" && file.path().extension() != ".hpp") continue;
      ++seen;
      const std::vector<std::string> lines = lines_of(file.path());
      const std::string name = fs::relative(file, root).string();
      if (lines.size() > kLongestFile && !gives_reason(lines)) {
        found.push_back(name + ": " + std::to_string(lines.size()) + " lines");
      }
      for (const std::string& function : long_functions(lines)) found.push_back(name + ":" + function);
    }
  }
  return found;
}

TEST(Length, OfEveryFileAndFunctionIsWithinBounds) {
  std::size_t seen = 0;
  EXPECT_THAT(too_long(dds::test::kSourceRoot, {"src", "hooks"}, seen), IsEmpty());
  EXPECT_GT(seen, 100u);
}

TEST(Length, WhatIsTooLongIsFound) {
  const fs::path root = fs::path(testing::TempDir()) / "dds_length";
  fs::remove_all(root);
  fs::create_directories(root / "src");
  const auto write = [&](const std::string& head, std::size_t lines_within, const std::string& tail) {
    std::ofstream file(root / "src/one.cpp");
    file << head;
    for (std::size_t i = 0; i < lines_within; ++i) file << "    step();\n";
    file << tail;
  };
  std::size_t seen = 0;
  write("void f(int a,\n       int b) {\n", kLongestFunction - 3, "}\n");
  EXPECT_THAT(too_long(root, {"src"}, seen), IsEmpty());
  write("#include <a>\n\nvoid f(int a,\n       int b) {\n", kLongestFunction - 2, "}\n");
  EXPECT_THAT(too_long(root, {"src"}, seen), ElementsAre("src/one.cpp:3: 61 lines"));
  write("class C {\n  void f() {\n", kLongestFunction - 1, "  }\n};\n");
  EXPECT_THAT(too_long(root, {"src"}, seen), ElementsAre("src/one.cpp:2: 61 lines"));
  write("// A table.\n", kLongestFile, "");
  EXPECT_THAT(too_long(root, {"src"}, seen), ElementsAre("src/one.cpp: 451 lines"));
  write("// A table.\n" + kReason + "it is one.\n", kLongestFile, "");
  EXPECT_THAT(too_long(root, {"src"}, seen), IsEmpty());
  EXPECT_EQ(seen, 5u);
  fs::remove_all(root);
}

}  // namespace
