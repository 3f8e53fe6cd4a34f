// Other seeds for the tests that draw numbers, to count how often one fails by chance.
//
//   DDS_TEST_SEED=1 build/default/tests/dds_llc_tests --gtest_filter='Diagnostics.*' --gtest_repeat=1000
//   --gtest_brief=1
//
// runs them with the 1,000 seeds from there on. Without the variable every run has the seeds that stand in the tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace dds::test {

/// Counts the repetitions of the whole program.
class Repetitions : public testing::EmptyTestEventListener {
 public:
  Repetitions() { testing::UnitTest::GetInstance()->listeners().Append(this); }
  void OnTestIterationStart(const testing::UnitTest&, int iteration) override {
    done = static_cast<std::uint64_t>(iteration);
  }
  static inline std::uint64_t done = 0;
};
inline Repetitions* const repetitions = new Repetitions;  // GoogleTest's from here on

inline const char* const first_seed = std::getenv("DDS_TEST_SEED");

/// `fixed`, or the same of another set of seeds where DDS_TEST_SEED asks for one; sets have none in common.
inline std::uint64_t seed(std::uint64_t fixed) {
  if (!first_seed) return fixed;
  return fixed + 1'000'003 * (std::strtoull(first_seed, nullptr, 10) + Repetitions::done);
}

/// Expects `value` within four of its standard errors of `expected`, and `bias` beside. If the error is right, and no
/// bias there, chance breaks that in 6e-5 of all runs; whether it is right shows the distance in errors, which is
/// printed with other seeds: "z TEST DISTANCE".
inline void expect_near(double value, double expected, double error, double bias = 0,
                        const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const testing::ScopedTrace trace(file, line, "");
  EXPECT_NEAR(value, expected, 4 * error + bias);
  if (!first_seed) return;
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  std::printf("z %s.%s %.3f\n", test.test_suite_name(), test.name(), (value - expected) / error);
}

}  // namespace dds::test
