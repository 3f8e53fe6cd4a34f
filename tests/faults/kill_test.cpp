// Runs that are killed at random moments, again and again: whatever was logged is there, nothing stands twice, and in
// the end the log is that of a run that was left in peace. `DDS_KILLS=300 build/default/tests/dds_faults_tests
// --gtest_filter='*Kill*'` kills each of them so many times.
#include <fcntl.h>

#include <algorithm>
#include <dds/report.hpp>
#include <dds/run.hpp>
#include <limits>
#include <map>
#include <random>

#include "src/log/event_file.hpp"
#include "src/log/record.hpp"
#include "src/log/spectra.hpp"
#include "tests/faults/process.hpp"
#include "tests/faults/training.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
using test::message_of;
namespace fs = std::filesystem;
using std::chrono::microseconds;

/// Every row of a run as text, without the times.
std::vector<std::string> rows_of(const log::Run& run) {
  std::vector<std::string> rows;
  for (Signature s : run.signatures) {
    s.seconds = 0;
    rows.push_back(log::csv_line(s) + log::spectrum_line(s));
  }
  for (LlcEstimate e : run.estimates) {
    e.seconds = 0;
    rows.push_back(log::csv_line(e));
  }
  for (Metric m : run.metrics) {
    if (m.name.ends_with("_seconds")) m.value = 0;
    rows.push_back(log::csv_line(m));
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

/// How many rows there are at each step.
std::map<std::int64_t, std::int64_t> count_by_step(const log::Run& run) {
  std::map<std::int64_t, std::int64_t> counts;
  for (const Signature& s : run.signatures) ++counts[s.step];
  for (const LlcEstimate& e : run.estimates) ++counts[e.step];
  for (const Metric& m : run.metrics) ++counts[m.step];
  return counts;
}

/// How many events with values.
std::size_t events_of(const fs::path& run) {
  std::size_t events = 0;
  for (const auto& entry : fs::directory_iterator(run)) {
    if (!entry.path().filename().string().starts_with("events.out.")) continue;
    const std::string bytes = content(entry.path());
    const std::size_t payloads = log::tf_payloads(bytes).size();
    if (payloads > 0) events += payloads - 1;  // the first has the version
  }
  return events;
}

/// What a training says of itself through a pipe.
struct Said {
  std::int64_t step, rows;
};

constexpr std::size_t kToTheEnd = std::numeric_limits<std::size_t>::max();

struct Case {
  std::string name;
  bool checkpoint_first;
  Worker worker;
  bool tensorboard;
};

class KilledTraining : public test::LogTest, public testing::WithParamInterface<Case> {
 protected:
  /// The training of the folder `name`, from where it was; says through `said` which rows it has logged to their end,
  /// or behind a worker only that it goes on.
  void train(const std::string& name, int said) const {
    const Case& job = GetParam();
    test::Training training;
    training.checkpoint = path(name + ".pt");
    training.checkpoint_first = job.checkpoint_first;
    training.logged = [&](std::int64_t step, std::int64_t rows) {
      const Said one{step, job.worker == Worker::Off ? rows : 0};
      if (::write(said, &one, sizeof one) != sizeof one) throw IoError("the pipe is full");
    };
    const auto options = MonitorOptions()
                             .every(2)
                             .worker(job.worker)
                             .signatures(SignatureOptions().sides({Side::Activation, Side::Fisher}).spectra(true));
    test::train(training, options, log::directory(path(name), {.resume = true, .tensorboard = job.tensorboard}));
  }
};

TEST_P(KilledTraining, LosesNoRowAndHasNoneTwice) {
  std::mt19937_64 random(GetParam().name.size());
  // The training of a folder; killed, if at all, after it has said so much, and a little. How much is left in `said`.
  std::vector<Said> said;
  const auto killed_after = [&](const std::string& name, std::size_t count) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    said.clear();
    Said one;
    const auto hear = [&] {
      const bool heard = ::read(ends[0], &one, sizeof one) == sizeof one;
      if (heard) said.push_back(one);
      return heard;
    };
    const bool was_killed = test::killed([&] { train(name, ends[1]); },
                                         [&] {
                                           ::close(ends[1]);
                                           while (said.size() < count && hear()) continue;
                                           if (count < kToTheEnd) test::pause(random, microseconds(2000));
                                         });
    while (hear()) continue;
    ::close(ends[0]);
    return was_killed;
  };
  killed_after("whole", kToTheEnd);
  std::uniform_int_distribution<std::size_t> moment(0, said.size());
  const log::Run whole = log::read_run(path("whole"));
  const std::vector<std::string> expected = rows_of(whole);
  const std::size_t events = events_of(path("whole"));
  ASSERT_EQ(std::adjacent_find(expected.begin(), expected.end()), expected.end());

  int runs = 0, killed_while_logging = 0;
  for (int left = test::kills(10); left > 0 || runs == 0;) {
    const bool was_killed = killed_after("run", left > 0 ? moment(random) : kToTheEnd);
    std::map<std::int64_t, std::int64_t> logged;  // rows to their end, by step
    for (const Said& one : said) logged[one.step] += one.rows;
    killed_while_logging += was_killed && !said.empty();
    if (fs::exists(path("run") / "run.json")) {
      auto before = count_by_step(log::read_run(path("run")));
      for (const auto& [step, rows] : logged)
        ASSERT_GE(before[step], rows) << "rows of step " << step << " are missing";
      log::directory(path("run"), {.resume = true});
      for (const char* file : {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv"}) {
        const std::string text = content(path("run") / file);
        EXPECT_TRUE(text.empty() || text.back() == '\n') << file;
      }
      const log::Run run = log::read_run(path("run"));
      const std::vector<std::string> rows = rows_of(run);
      EXPECT_TRUE(std::includes(expected.begin(), expected.end(), rows.begin(), rows.end())) << "a row too many";
      auto after = count_by_step(run);
      for (const auto& [step, count] : before) EXPECT_GE(after[step], count) << step;
    } else {
      EXPECT_TRUE(said.empty());
    }
    left -= was_killed;
    if (was_killed) continue;
    EXPECT_EQ(rows_of(log::read_run(path("run"))), expected);
    EXPECT_EQ(events_of(path("run")), events);
    ++runs;
    fs::remove_all(path("run"));
    fs::remove(path("run.pt"));
  }
  RecordProperty("killed_while_logging", killed_while_logging);
  RecordProperty("finished", runs);
}

INSTANTIATE_TEST_SUITE_P(Runs, KilledTraining,
                         testing::Values(Case{"LogFirst", false, Worker::Off, false},
                                         Case{"CheckpointFirst", true, Worker::Off, true},
                                         Case{"Behind", false, Worker::Wait, true}),
                         [](const auto& info) { return info.param.name; });

class KilledWriter : public test::LogTest {};

TEST_F(KilledWriter, LeavesDescriptionAndReportWhole) {
  std::mt19937_64 random(2);
  {
    const auto sink = log::directory(path());
    for (int step = 0; step < 30; ++step) sink->write(test::signature(step));
  }
  write_report(path());
  for (int left = test::kills(10); left > 0; --left) {
    const bool was_killed = test::killed(
        [&] {
          const auto sink = log::directory(path(), {.resume = true});
          for (std::int64_t i = 0;; ++i) {
            sink->describe("count", std::to_string(i));
            sink->describe("text", '"' + std::string(static_cast<std::size_t>(i % 9000), 'x') + '"');
            if (i % 50 == 49) write_report(path());
          }
        },
        [&] { test::pause(random, microseconds(60'000)); });
    ASSERT_TRUE(was_killed);
    EXPECT_EQ(log::read_run(path()).signatures.size(), 30u);
    EXPECT_TRUE(content(path() / "report.html").ends_with("</html>\n"));
  }
  std::size_t left_over = 0;
  log::directory(path(), {.resume = true});
  for (const auto& entry : fs::directory_iterator(path()))
    left_over += entry.path().filename().string().starts_with("run.json.");
  EXPECT_EQ(left_over, 0u);
}

// ---- two runs into one folder ----

class TwoWriters : public test::LogTest {};

TEST_F(TwoWriters, OfSeveralAtTheSameInstantOneGetsTheFolder) {
  constexpr int kWriters = 4;
  for (int round = 0; round < 10; ++round) {
    int start[2], results[2];
    ASSERT_TRUE(::pipe(start) == 0 && ::pipe(results) == 0);
    std::vector<pid_t> writers;
    for (int i = 0; i < kWriters; ++i) {
      writers.push_back(test::start([&] {
        char result;
        ::close(start[1]);
        while (::read(start[0], &result, 1) > 0) continue;  // until the test closes its end
        try {
          const auto sink = log::directory(path(), {.resume = round % 2 == 1});
          result = 'y';
          if (::write(results[1], &result, 1) == 1) ::pause();  // until it is killed
        } catch (const IoError& error) {
          const std::string_view what = error.what();
          const bool told = what.find("another run") != what.npos || what.find("not empty") != what.npos;
          result = told ? 'n' : '?';
          if (::write(results[1], &result, 1) != 1) throw;
        }
      }));
    }
    ::close(start[0]), ::close(start[1]), ::close(results[1]);
    std::string all(kWriters, ' ');
    for (char& result : all) ASSERT_EQ(::read(results[0], &result, 1), 1);
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, "nnny");
    EXPECT_NE(message_of<IoError>([&] { log::directory(path(), {.resume = true}); }).find("another run"),
              std::string::npos);
    for (const pid_t writer : writers) ::kill(writer, SIGKILL);
    for (const pid_t writer : writers) ::waitpid(writer, nullptr, 0);
    ::close(results[0]);
    log::directory(path(), {.resume = true})->write(Metric{1, "loss", 2});  // the killed one's place is free
    EXPECT_EQ(log::read_run(path()).metrics.size(), 1u);
    fs::remove_all(path());
  }
}

}  // namespace
}  // namespace dds
