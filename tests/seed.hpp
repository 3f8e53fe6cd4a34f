// Other seeds for the tests that draw numbers, to count how often one fails by chance.
//
//   DDS_TEST_SEED=1 build/default/tests/dds_llc_tests --gtest_filter='Diagnostics.*' --gtest_repeat=1000
//   --gtest_brief=1
//
// runs them with the 1,000 seeds from there on. Without the variable every run has the seeds that stand in the tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

namespace dds::test {

/// Counts the repetitions of the whole program.
class Repetitions : public testing::Environment {
 public:
  void SetUp() override { ++begun; }
  static inline std::uint64_t begun = 0;
};
inline testing::Environment* const repetitions = testing::AddGlobalTestEnvironment(new Repetitions);

/// `fixed`, or the same of another set of seeds where DDS_TEST_SEED asks for one; sets have none in common.
inline std::uint64_t seed(std::uint64_t fixed) {
  static const char* const first = std::getenv("DDS_TEST_SEED");
  if (!first) return fixed;
  return fixed + 1'000'003 * (std::strtoull(first, nullptr, 10) + Repetitions::begun - 1);
}

}  // namespace dds::test
