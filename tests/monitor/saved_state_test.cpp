// The text of a monitor's state: what comes back, and texts that are none, of which a number may be any.
#include "src/monitor/saved_state.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;

std::string with_steps(const std::string& number) {
  return fmt::format(R"({{"steps": {}, "fixed_ranks": []}})", number);
}
std::string with_rank(const std::string& number) {
  return fmt::format(R"({{"steps": 2, "fixed_ranks": [["fc", "input", "step", "", {}]]}})", number);
}

TEST(SavedState, ComesBackWhateverTheNames) {
  SavedState state;
  state.parameters = "4 parameters";
  state.steps = std::int64_t{1} << 53;
  state.fixed_ranks[{"a \"b\"\n", Side::Fisher, Source::Read, FisherKind(FisherKind::Sampled, 2)}] = 1;
  state.fixed_ranks[{"", Side::Activation, Source::Step, std::nullopt}] = 4096;
  const SavedState back = saved_state(text_of(state));
  EXPECT_EQ(back.parameters, state.parameters);
  EXPECT_EQ(back.steps, state.steps);
  EXPECT_EQ(back.fixed_ranks, state.fixed_ranks);
}

// A cast of such a double to an integer is undefined, and 2^63 as an integer is negative.
TEST(SavedState, NumbersThatAreNoCountsAreNamed) {
  for (const char* number : {"1e300", "-1e300", "1e19", "9223372036854775807", "9223372036854775808",
                             "18446744073709551615", "9007199254740993", "-1", "2.5", "3.0", "null", "\"7\"", "[1]"}) {
    const std::string shown = nlohmann::json::parse(number).dump();
    EXPECT_THAT(message_of([&] { saved_state(with_steps(number)); }),
                HasSubstr("load_state: steps is " + shown + ", expected a whole number from 0 to 2^53"));
    EXPECT_THAT(message_of([&] { saved_state(with_rank(number)); }),
                HasSubstr("the fixed rank of fc, input side (step) is " + shown + ", expected a whole number from 1"));
  }
  EXPECT_THAT(message_of([] { saved_state(with_rank("0")); }), HasSubstr("is 0, expected"));
  EXPECT_EQ(saved_state(with_steps("0")).steps, 0);
}

TEST(SavedState, OtherTextsAreNone) {
  for (const char* text :
       {"", "not json", "null", "[]", "{}", R"({"steps": 1})", R"({"steps": 1, "fixed_ranks": [[]]})",
        R"({"steps": 1, "fixed_ranks": [["fc", 1, "step", "", 1]]})",
        R"({"steps": 1, "fixed_ranks": [], "parameters": 7})"}) {
    EXPECT_THAT(message_of([&] { saved_state(text); }), HasSubstr("load_state")) << text;
  }
  EXPECT_THAT(message_of([] { saved_state(R"({"steps": 1, "fixed_ranks": [["fc", "top", "step", "", 1]]})"); }),
              HasSubstr("side is 'top'"));
  EXPECT_THAT(message_of([] { saved_state(std::string(1 << 20, '[')); }), HasSubstr("load_state"));
}

}  // namespace
}  // namespace dds
