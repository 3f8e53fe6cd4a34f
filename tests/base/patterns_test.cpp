#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <dds/patterns.hpp>

#include "tests/support.hpp"

namespace dds {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Patterns, SelectNamesThatOneOfThemMatches) {
  const Patterns patterns({"blocks.?.fc", "head*"});
  for (const char* name : {"blocks.0.fc", "head", "head.bias"}) EXPECT_TRUE(patterns.select(name)) << name;
  for (const char* name : {"blocks.10.fc", "blocks.0.fc.", "the head", ""}) EXPECT_FALSE(patterns.select(name)) << name;
  EXPECT_FALSE(patterns.all());
  EXPECT_THAT(patterns.list(), ElementsAre("blocks.?.fc", "head*"));
}

TEST(Patterns, OfNoListSelectAll) {
  const Patterns patterns = std::nullopt;
  EXPECT_TRUE(patterns.all());
  EXPECT_TRUE(patterns.select("anything"));
  EXPECT_TRUE(patterns.select(""));
}

TEST(Patterns, AreNoEmptyList) {
  EXPECT_THAT(test::message_of([] { Patterns({}); }), HasSubstr("patterns is empty"));
  EXPECT_THROW(Patterns(std::vector<std::string>()), InvalidArgument);
}

}  // namespace
}  // namespace dds
