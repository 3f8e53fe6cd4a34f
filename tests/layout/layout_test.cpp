// A file includes headers of its own folder and of earlier ones alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "tests/paths.hpp"

namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kFolders = {"src/base",     "src/ranks",  "src/model",      "hooks",       "src/rows",
                                           "src/spectral", "src/causes", "src/per_sample", "src/theory",  "src/series",
                                           "src/llc",      "src/page",   "src/log",        "src/reading", "src/monitor",
                                           "src/attach",   "src/tool"};

/// Place of a folder in the order; of none: behind all.
std::size_t place(const std::string& folder) {
  return static_cast<std::size_t>(std::find(kFolders.begin(), kFolders.end(), folder) - kFolders.begin());
}

/// The folder that implements a public header: the one of its name, or else the first with a source of its name.
/// None: several do, or none has to.
std::size_t place_of_public(const fs::path& root, const std::string& name) {
  for (std::size_t i = 0; i < kFolders.size(); ++i) {
    if (fs::path(kFolders[i]).filename() == name) return i;
  }
  const auto has_source = [&](const std::string& folder) { return fs::exists(root / folder / (name + ".cpp")); };
  return static_cast<std::size_t>(std::find_if(kFolders.begin(), kFolders.end(), has_source) - kFolders.begin());
}

/// "FILE includes HEADER" for each include that runs backwards. `seen` counts the includes that were judged.
std::vector<std::string> backwards(const fs::path& root, std::size_t& seen) {
  static const std::regex include(R"(^\s*#\s*include\s*["<]((?:src/|hooks/|dds/)[^">]+)[">].*)");
  std::vector<std::string> found;
  for (const std::string& folder : kFolders) {
    for (const auto& file : fs::recursive_directory_iterator(root / folder)) {
      if (file.path().extension() != ".cpp" && file.path().extension() != ".hpp") continue;
      std::ifstream text(file.path());
      std::smatch match;
      for (std::string line; std::getline(text, line);) {
        if (!std::regex_match(line, match, include)) continue;
        const fs::path header = match[1].str();
        const bool is_public = *header.begin() == "dds";
        const std::size_t of =
            is_public ? place_of_public(root, header.stem().string()) : place(header.parent_path().string());
        if (is_public && of == kFolders.size()) continue;
        ++seen;
        if (of > place(folder)) found.push_back(fs::relative(file, root).string() + " includes " + header.string());
      }
    }
  }
  return found;
}

TEST(Layout, NoIncludeRunsBackwards) {
  std::size_t seen = 0;
  EXPECT_THAT(backwards(dds::test::kSourceRoot, seen), testing::IsEmpty());
  EXPECT_GT(seen, 300u);
}

TEST(Layout, AnIncludeThatRunsBackwardsIsFound) {
  const fs::path root = fs::path(testing::TempDir()) / "dds_layout";
  fs::remove_all(root);
  for (const std::string& folder : kFolders) fs::create_directories(root / folder);
  std::ofstream(root / "src/theory/fit.cpp") << "\n";
  std::ofstream(root / "src/monitor/monitor.hpp") << "#include \"src/log/csv.hpp\"\n";
  std::ofstream(root / "src/spectral/solver.cpp")
      << "#include \"src/monitor/monitor.hpp\"\n  #include <dds/log.hpp>\n#include <dds/fit.hpp>\n";
  std::size_t seen = 0;
  EXPECT_THAT(backwards(root, seen),
              testing::UnorderedElementsAre("src/spectral/solver.cpp includes src/monitor/monitor.hpp",
                                            "src/spectral/solver.cpp includes dds/log.hpp",
                                            "src/spectral/solver.cpp includes dds/fit.hpp"));
  EXPECT_EQ(seen, 4u);
  fs::remove_all(root);
}

}  // namespace
