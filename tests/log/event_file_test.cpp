// The event files of TensorBoard: their checksums, their order, and what a crash, a full disk and a clock that jumps
// do.
#include "src/log/event_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
using test::estimate;
using test::signature;
namespace fs = std::filesystem;

/// The CRC-32C test vectors of RFC 3720, appendix B.4.
TEST(EventFile, ChecksumIsThatOfTheStandard) {
  EXPECT_EQ(log::crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(log::crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) rising += static_cast<char>(i), falling += static_cast<char>(31 - i);
  EXPECT_EQ(log::crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(log::crc32c(falling), 0x113fdb5cu);
  EXPECT_EQ(log::crc32c("123456789"), 0xe3069283u);
}

TEST(EventFile, RecordsAreReadUpToTheFirstThatIsTornOrDamaged) {
  const std::vector<std::string> payloads = {"a", "", std::string(300, 'b')};
  std::string file;
  std::vector<std::size_t> ends = {0};
  for (const std::string& payload : payloads) {
    file += log::tf_record(payload);
    ends.push_back(file.size());
  }
  for (std::size_t size = 0; size <= file.size(); ++size) {
    const auto whole = log::tf_payloads(std::string_view(file).substr(0, size));
    const auto expected = std::upper_bound(ends.begin(), ends.end(), size) - ends.begin() - 1;
    ASSERT_EQ(std::ssize(whole), expected) << size;
    for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(whole[i], payloads[i]);
  }
  for (std::size_t place = 0; place < file.size(); ++place) {
    std::string damaged = file;
    damaged[place] ^= 1;
    const auto expected = std::upper_bound(ends.begin(), ends.end(), place) - ends.begin() - 1;
    ASSERT_EQ(std::ssize(log::tf_payloads(damaged)), expected) << place;
  }
}

class EventFolder : public test::LogTest {
 protected:
  /// The event files in TensorBoard's order.
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(path())) {
      if (entry.path().filename().string().starts_with("events.out.tfevents.")) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  /// The events of all files: their times and the rest, but for the first of each file, which has its version.
  struct Event {
    double time;
    std::string rest;
  };
  std::vector<Event> events() const {
    std::vector<Event> all;
    for (const fs::path& file : files()) {
      const std::string bytes = content(file);
      const auto payloads = log::tf_payloads(bytes);
      for (std::size_t i = 1; i < payloads.size(); ++i) {
        Event event{0, std::string(payloads[i].substr(9))};
        std::memcpy(&event.time, payloads[i].data() + 1, sizeof event.time);
        all.push_back(std::move(event));
      }
    }
    return all;
  }
  static void log_step(log::Sink& sink, std::int64_t step) {
    sink.write(signature(step));
    sink.write(estimate(step));
    sink.write(Metric{step, "loss", 0.5});
  }
};

TEST_F(EventFolder, TimesAndFilesStayInOrderWhenTheClockGoesBack) {
  double clock = 1e9;
  std::vector<std::string> names;
  for (int run = 0; run < 3; ++run) {
    const auto sink = log::tensorboard(path(), {.wall_time = [&] { return clock -= 100.5; }});
    for (int step = 0; step < 4; ++step) sink->write(Metric{4 * run + step, "loss", 1});
    for (const fs::path& file : files()) {
      if (std::find(names.begin(), names.end(), file.filename()) == names.end()) names.push_back(file.filename());
    }
  }
  EXPECT_EQ(names.size(), 3u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  const std::vector<Event> all = events();
  ASSERT_EQ(all.size(), 12u);
  for (std::size_t i = 1; i < all.size(); ++i) EXPECT_GE(all[i].time, all[i - 1].time);
}

TEST_F(EventFolder, ClocksAndNamesBeyondAllReasonAreTaken) {
  fs::create_directories(path());
  for (const char* second : {"9223372036854775807", "99999999999999999999", "-5", "x", ""})
    test::put(path() / (std::string("events.out.tfevents.") + second), "");
  for (const double time : {-1.0, 1e300, HUGE_VAL, std::nan("")})
    log::tensorboard(path(), {.wall_time = [&] { return time; }})->write(Metric{1, "loss", 1});
  EXPECT_EQ(files().size(), 9u);
  EXPECT_EQ(events().size(), 4u);
}

TEST_F(EventFolder, AResumedRunAddsTheEventsThatAreMissingAndNoOther) {
  {
    const auto sink = log::directory(path(), {.tensorboard = true});
    sink->describe("seed", "7");
    for (const int step : {1, 2}) log_step(*sink, step);
  }
  const std::size_t whole = events().size();
  EXPECT_EQ(whole, 7u);
  fs::resize_file(files()[0], fs::file_size(files()[0]) - 3);  // the last row's event is torn
  EXPECT_EQ(events().size(), whole - 1);
  {
    const auto sink = log::directory(path(), {.resume = true, .tensorboard = true});
    sink->describe("seed", "7");
    for (const int step : {2, 3}) log_step(*sink, step);  // the training comes by step 2 again
  }
  std::vector<Event> all = events();
  EXPECT_EQ(all.size(), 10u);
  std::sort(all.begin(), all.end(), [](const Event& a, const Event& b) { return a.rest < b.rest; });
  const auto twice =
      std::adjacent_find(all.begin(), all.end(), [](const Event& a, const Event& b) { return a.rest == b.rest; });
  EXPECT_EQ(twice, all.end());
}

TEST_F(EventFolder, ARunThatHadNoEventsGetsThemWhenItIsResumed) {
  {
    const auto sink = log::directory(path());
    for (const int step : {1, 2}) log_step(*sink, step);
  }
  log::directory(path(), {.resume = true, .tensorboard = true});
  EXPECT_EQ(events().size(), 6u);
}

}  // namespace
}  // namespace dds
