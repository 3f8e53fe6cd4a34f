// Every fuzzer on the inputs that it begins with, and on those torn and with a bit turned: so the usual build keeps the
// fuzzers compiling and passing.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "src/log/file.hpp"
#include "tests/fuzz/fuzz.hpp"

int write_seeds(int argc, char** argv);

#define FUZZER(name) extern "C" int fuzz_##name(const std::uint8_t* data, std::size_t size);
DDS_FUZZERS
#undef FUZZER

namespace dds {
namespace {

struct Fuzzer {
  const char* name;
  int (*run)(const std::uint8_t* data, std::size_t size);
};
void PrintTo(const Fuzzer& fuzzer, std::ostream* os) { *os << fuzzer.name; }

class Fuzzers : public testing::TestWithParam<Fuzzer> {
 protected:
  static void SetUpTestSuite() {
    std::string program = "seeds", folder = seeds().string();
    char* argv[] = {program.data(), folder.data(), nullptr};
    ASSERT_EQ(write_seeds(2, argv), 0);
  }
  static std::filesystem::path seeds() { return fuzz::folder() / "seeds"; }
  static void run(const std::string& input) {
    EXPECT_EQ(GetParam().run(reinterpret_cast<const std::uint8_t*>(input.data()), input.size()), 0);
  }
};

TEST_P(Fuzzers, EndWellOnTheirSeeds) {
  constexpr std::size_t kTorn = 20, kTurned = 20;
  int inputs = 0;
  for (const auto& file : std::filesystem::directory_iterator(seeds() / GetParam().name)) {
    const std::string seed = log::read_file(file.path());
    ASSERT_FALSE(seed.empty());
    run(seed);
    for (std::size_t i = 0; i < kTorn; ++i) run(seed.substr(0, seed.size() * i / kTorn));
    for (std::size_t i = 0; i < kTurned; ++i) {
      std::string turned = seed;
      turned[seed.size() * i / kTurned] ^= static_cast<char>(1 << (i % 8));
      run(turned);
    }
    ++inputs;
  }
  EXPECT_GT(inputs, 0);
}

#define FUZZER(name) Fuzzer{#name, fuzz_##name},
INSTANTIATE_TEST_SUITE_P(Parsers, Fuzzers, testing::ValuesIn(std::vector<Fuzzer>{DDS_FUZZERS}),
                         [](const auto& info) { return info.param.name; });
#undef FUZZER

}  // namespace
}  // namespace dds
