// The snippets of README and pages compile and run, in their order, in one empty folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "tests/docs/world.hpp"

namespace snippets {
namespace {

namespace fs = std::filesystem;

TEST(Snippets, Run) {
  torch::manual_seed(0);
  std::string pattern = (fs::temp_directory_path() / "dds_snippets_XXXXXX").string();
  const fs::path folder = mkdtemp(pattern.data()), before = fs::current_path();
  fs::current_path(folder);
  World world;
  for (int i = 0; i < 100; ++i) {
    world.batches.emplace_back(torch::randn({16, 3}), torch::randint(0, 2, {16}, torch::kLong));
  }
  EXPECT_THAT(all(), testing::SizeIs(testing::Ge(8)));
  for (const Snippet& snippet : all()) {
    SCOPED_TRACE(snippet.place);
    EXPECT_NO_THROW(snippet.run(world));
  }
  EXPECT_TRUE(fs::exists("runs/a/report.html"));
  fs::current_path(before);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace snippets
