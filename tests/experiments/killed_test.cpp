// Experiments that are killed at random moments: finished pieces are kept, once each, and what is replaced is whole.
#include <fcntl.h>

#include <fstream>
#include <map>
#include <sstream>

#include "experiments/harness/finished.hpp"
#include "tests/faults/process.hpp"

namespace dds::experiments {
namespace {

using nlohmann::json;
using std::chrono::microseconds;

class KilledExperiment : public testing::Test {
 protected:
  KilledExperiment() {
    options_.experiment = "some";
    options_.out = testing::TempDir() + "dds_killed_" + std::to_string(getpid());
    std::filesystem::remove_all(options_.out);
  }
  ~KilledExperiment() override { std::filesystem::remove_all(options_.out); }

  static json piece_of(int key) {
    return {{"square", key * key}, {"text", std::string(static_cast<std::size_t>(key % 700), 'x')}};
  }
  /// Makes pieces from the first on and says so, and writes a summary now and then.
  void work(int said) const {
    ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);  // the summary's table
    Finished finished(options_);
    Summary summary(options_);
    for (int key = 0;; ++key) {
      finished.piece(std::to_string(key), [&] { return piece_of(key); });
      if (::write(said, &key, sizeof key) != sizeof key) return;
      if (key % 20 == 0) {
        summary.add(claim_of("claim." + std::to_string(key), "", std::nullopt));
        summary.write();
      }
    }
  }

  RunOptions options_;
};

TEST_F(KilledExperiment, KeepsItsPiecesAndItsSummary) {
  std::mt19937_64 random(5);
  int most = -1;
  for (int left = test::kills(10); left > 0; --left) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    EXPECT_TRUE(test::killed([&] { work(ends[1]); }, [&] { test::pause(random, microseconds(20'000)); }));
    ::close(ends[1]);
    for (int key; ::read(ends[0], &key, sizeof key) == sizeof key;) most = std::max(most, key);
    ::close(ends[0]);

    std::size_t pieces = 0;
    {
      Finished again(options_);
      pieces = again.taken_over();
      EXPECT_GE(static_cast<int>(pieces), most + 1);
      for (int key = 0; key < static_cast<int>(pieces); ++key) {
        ASSERT_EQ(again.piece(std::to_string(key), [] { return json(-1); }), piece_of(key));
      }
    }
    std::ifstream in(options_.out / "finished.jsonl");
    const std::string whole = (std::stringstream() << in.rdbuf()).str();
    EXPECT_EQ(whole.back(), '\n');
    EXPECT_EQ(std::count(whole.begin(), whole.end(), '\n'), static_cast<std::ptrdiff_t>(pieces) + 1) << "once each";
    std::ifstream summary(options_.out / "summary.json");
    if (summary) {
      EXPECT_EQ(json::parse(summary, nullptr, false)["experiment"], "some");
    }
  }
  EXPECT_GT(most, 0);
}

}  // namespace
}  // namespace dds::experiments
