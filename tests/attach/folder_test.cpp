#include "src/attach/folder.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <dds/run.hpp>

#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using FolderTest = test::LogTest;

TEST_F(FolderTest, RowsAndDescriptionsWaitUntilItCanBeMade) {
  const auto parent = path("parent");
  test::put(parent, "a file in its place");
  attach::Folder folder(parent / "run");
  folder.describe("seed", "7");
  for (const int step : {0, 10}) EXPECT_THROW(folder.write(test::signature(step)), IoError);
  EXPECT_THROW(folder.write(Metric{10, "loss", 0.5}), IoError);

  std::filesystem::remove(parent);
  folder.write(test::signature(20));
  const log::Run run = log::read_run(parent / "run");
  ASSERT_EQ(run.signatures.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(run.signatures[i].step, 10 * static_cast<std::int64_t>(i));
  EXPECT_EQ(run.metrics.size(), 1u);
  EXPECT_EQ(test::described(run, "seed"), 7);
}

TEST_F(FolderTest, OfAnotherProcessIsLeftToIt) {
  const auto taken = path("run");
  std::filesystem::create_directories(taken);
  test::put(taken / "thesis.tex", "");
  attach::Folder folder(taken);
  folder.write(test::signature(0));
  EXPECT_EQ(folder.path(), std::filesystem::path(fmt::format("{}.{}", taken.string(), ::getpid())));
  EXPECT_EQ(log::read_run(folder.path()).signatures.size(), 1u);
}

}  // namespace
}  // namespace dds
