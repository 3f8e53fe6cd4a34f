// The guide has a line for each status.
#include <gtest/gtest.h>

#include <dds/signature.hpp>
#include <fstream>
#include <iterator>

#include "tests/paths.hpp"

namespace dds {
namespace {

TEST(Guide, HasEveryStatus) {
  std::ifstream stream(std::string(test::kSourceRoot) + "/src/docs/guide.md");
  const std::string page(std::istreambuf_iterator<char>(stream), {});
  int statuses = 0;
  for (int bit = 0; bit < 32; ++bit) {
    const std::string name = to_string(StatusSet(static_cast<Status>(1u << bit)));
    if (name == "ok") continue;  // no status has this bit
    ++statuses;
    EXPECT_NE(page.find("\n| `" + name + "` | "), std::string::npos) << name;
  }
  EXPECT_GE(statuses, 20);
}

}  // namespace
}  // namespace dds
