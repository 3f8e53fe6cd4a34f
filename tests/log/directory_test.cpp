// A run directory: what it holds, what it refuses, and what is left of it after a crash or on a full disk.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <dds/run.hpp>
#include <dds/schema.hpp>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/faults/process.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
using test::estimate;
using test::message_of;
using test::signature;
namespace fs = std::filesystem;

class DirectoryTest : public test::LogTest {
 protected:
  /// Writes a small run with names that need quoting.
  void write_run(const fs::path& path) const {
    const auto sink = log::directory(path);
    for (const int step : {0, 10, 30}) {
      sink->write(signature(step, "block,\"0\"\nout"));
      sink->write(estimate(step));
      sink->write(Metric{step, "train,loss", 0.5});
    }
    sink->describe("seed", "7");
  }
};

TEST_F(DirectoryTest, HoldsWhatWasWrittenWhileItIsStillOpen) {
  const auto sink = log::directory(path());
  sink->write(signature(1));
  sink->write(signature(1, "fc1", Side::Fisher));
  sink->write(estimate(1));
  sink->write(Metric{1, "train_loss", 0.25});
  sink->describe("options", R"({"every": 10})");

  const log::Run run = log::read_run(path());
  ASSERT_EQ(run.signatures.size(), 2u);
  EXPECT_EQ(run.signatures[1].side, Side::Fisher);
  EXPECT_EQ(run.signatures[0].spectrum, signature(1).spectrum);
  ASSERT_EQ(run.estimates.size(), 1u);
  EXPECT_EQ(run.estimates[0].settings.seed, estimate(1).settings.seed);
  ASSERT_EQ(run.metrics.size(), 1u);
  EXPECT_EQ(test::described(run, "options")["every"], 10);
  EXPECT_EQ(test::described(run, "schema_version"), schema::kVersion);
  EXPECT_TRUE(test::described(run, "dds").is_string());
  EXPECT_TRUE(test::described(run, "libtorch").is_string());
  EXPECT_TRUE(content(path() / "metrics.csv").starts_with("step,name,value\n1,train_loss,0.25\n"));
}

TEST_F(DirectoryTest, LeavesSpectraOutWhereTheyAreNotWanted) {
  log::directory(path(), {.resume = false, .spectra = false})->write(signature(1));
  EXPECT_FALSE(fs::exists(path() / "spectra.jsonl"));
  EXPECT_TRUE(log::read_run(path()).signatures.at(0).spectrum.empty());
}

TEST_F(DirectoryTest, NeverWritesNanOrInf) {
  const auto sink = log::directory(path());
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  Signature s = signature(1);
  s.sigma_min = nan;
  s.condition = inf;
  s.spectrum = {inf, nan};
  sink->write(s);
  LlcEstimate e = estimate(1);
  e.lambda = nan;
  e.diagnostics.baseline = inf;
  sink->write(e);
  sink->write(Metric{1, "loss", -inf});
  for (const char* file : {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv"}) {
    const std::string text = content(path() / file);
    ASSERT_GT(std::count(text.begin(), text.end(), '\n'), text.starts_with("{") ? 0 : 1) << file;
    const std::string rows = text.substr(text.starts_with("{") ? 0 : text.find('\n'));
    EXPECT_EQ(rows.find("nan"), std::string::npos) << rows;
    EXPECT_EQ(rows.find("inf"), std::string::npos) << rows;
  }
  EXPECT_FALSE(log::read_run(path()).estimates[0].lambda);
}

TEST_F(DirectoryTest, RefusesADirectoryThatHoldsAnythingAndSaysWhatToDo) {
  write_run(path());
  const std::string before = content(path() / "signatures.csv");
  const std::string message = message_of<IoError>([&] { log::directory(path()); });
  EXPECT_NE(message.find(path().string()), std::string::npos) << message;
  EXPECT_NE(message.find("resume"), std::string::npos) << message;
  EXPECT_EQ(content(path() / "signatures.csv"), before);

  fs::create_directories(path("other"));
  test::put(path("other") / "thesis.tex", "x");
  EXPECT_NE(message_of<IoError>([&] { log::directory(path("other")); }).find("thesis.tex"), std::string::npos);
  EXPECT_NE(message_of<IoError>([&] { log::directory(path("other"), {.resume = true}); }).find("run.json"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(path("other") / ".lock"));
}

TEST_F(DirectoryTest, NamesAPathThatCannotBeADirectory) {
  test::put(path("file"), "x");
  EXPECT_NE(message_of<IoError>([&] { log::directory(path("file")); }).find(path("file").string()), std::string::npos);
  const fs::path below = path("file") / "run";
  EXPECT_NE(message_of<IoError>([&] { log::directory(below); }).find(below.string()), std::string::npos);
  const fs::path unwritable = "/proc/dds/run";
  EXPECT_NE(message_of<IoError>([&] { log::directory(unwritable); }).find(unwritable.string()), std::string::npos);
}

TEST_F(DirectoryTest, HasOneWriterAtATime) {
  auto first = log::directory(path());
  const std::string message = message_of<IoError>([&] { log::directory(path(), {.resume = true}); });
  EXPECT_NE(message.find("another run"), std::string::npos) << message;
  first->write(signature(1));
  first.reset();
  log::directory(path(), {.resume = true})->write(signature(2));
  EXPECT_EQ(log::read_run(path()).signatures.size(), 2u);
}

TEST_F(DirectoryTest, ResumeBeginsWhereThereIsNothingAndKeepsTheDescription) {
  log::directory(path(), {.resume = true})->describe("seed", "7");
  const auto sink = log::directory(path(), {.resume = true});
  EXPECT_EQ(test::described(log::read_run(path()), "seed"), 7);
  EXPECT_THROW(sink->describe("seed", "{"), InvalidArgument);
  EXPECT_THROW(sink->describe("schema_version", "2"), InvalidArgument);
}

TEST_F(DirectoryTest, ResumeRefusesAnotherSchema) {
  write_run(path());
  test::put(path() / "run.json", R"({"schema_version": 999})");
  const std::string message = message_of<IoError>([&] { log::directory(path(), {.resume = true}); });
  EXPECT_NE(message.find("999"), std::string::npos) << message;

  fs::remove_all(path());
  write_run(path());
  test::put(path() / "metrics.csv", "step,name,number\n1,loss,2\n");
  EXPECT_NE(message_of<IoError>([&] { log::directory(path(), {.resume = true}); }).find("metrics.csv:1"),
            std::string::npos);
}

/// Cuts `file` of a run at every byte of its last row, resumes, and adds a row.
class CrashTest : public DirectoryTest, public testing::WithParamInterface<const char*> {};

/// Where the last row of a file begins: rows begin with a step, here 0, 10 and 30.
std::size_t last_row(const std::string& text) { return std::max(text.rfind("\n30,") + 1, text.rfind("\n{") + 1); }

TEST_P(CrashTest, LosesNoWholeRowAndDoublesNone) {
  const fs::path file = path() / GetParam();
  write_run(path("whole"));
  const std::string whole = content(path("whole") / GetParam());
  for (std::size_t size = last_row(whole); size <= whole.size(); ++size) {
    fs::remove_all(path());
    fs::copy(path("whole"), path(), fs::copy_options::recursive);
    fs::resize_file(file, size);
    const log::Run torn = log::read_run(path());
    {
      const auto sink = log::directory(path(), {.resume = true});
      sink->write(signature(100));
      sink->write(estimate(100));
      sink->write(Metric{100, "loss", 1});
    }
    const log::Run run = log::read_run(path());
    ASSERT_EQ(run.signatures.size(), torn.signatures.size() + 1) << size;
    ASSERT_EQ(run.estimates.size(), torn.estimates.size() + 1) << size;
    ASSERT_EQ(run.metrics.size(), torn.metrics.size() + 1) << size;
    ASSERT_EQ(run.signatures.back().step, 100);
    ASSERT_EQ(run.estimates.back().step, 100);
    ASSERT_EQ(run.metrics.back().step, 100);
    for (std::size_t i = 0; i + 1 < run.signatures.size(); ++i) {
      ASSERT_EQ(run.signatures[i].layer, "block,\"0\"\nout");
      ASSERT_EQ(run.signatures[i].spectrum, torn.signatures[i].spectrum);
    }
    ASSERT_EQ(run.signatures.back().spectrum, signature(100).spectrum);
    ASSERT_EQ(content(file).back(), '\n');
  }
  EXPECT_EQ(log::read_run(path()).estimates.size(), 4u);
}

INSTANTIATE_TEST_SUITE_P(Files, CrashTest, testing::Values("signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv"),
                         [](const auto& info) {
                           return std::string(info.param).substr(0, std::string(info.param).find('.')) +
                                  (std::string(info.param).ends_with("l") ? "Jsonl" : "Csv");
                         });

TEST_F(DirectoryTest, SurvivesATornHeader) {
  write_run(path("whole"));
  const std::size_t header = content(path("whole") / "metrics.csv").find('\n');
  for (std::size_t size = 0; size <= header; ++size) {
    fs::remove_all(path());
    fs::copy(path("whole"), path(), fs::copy_options::recursive);
    fs::resize_file(path() / "metrics.csv", size);
    log::directory(path(), {.resume = true})->write(Metric{1, "loss", 2});
    ASSERT_EQ(content(path() / "metrics.csv"), "step,name,value\n1,loss,2\n");
  }
}

/// A limit on the size of files, which fails a write in its middle as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(DirectoryTest, AWriteThatFailsHalfwayLeavesWholeRowsAndWaits) {
  const auto sink = log::directory(path());
  sink->write(signature(1));
  sink->write(Metric{1, "loss", 0.5});
  for (const char* file : {"spectra.jsonl", "metrics.csv"}) {
    const bool signatures = std::string(file).starts_with("spectra");
    const std::string before = content(path() / file);
    for (std::size_t room = 0; room < 12; ++room) {
      std::string message;
      {
        const FileSizeLimit limit(before.size() + room);
        message = message_of<IoError>([&] {
          if (signatures)
            sink->write(signature(2));
          else
            sink->write(Metric{2, "loss_that_is_long", static_cast<double>(room)});
        });
      }
      EXPECT_NE(message.find((path() / file).string()), std::string::npos) << message;
      EXPECT_NE(message.find("File too large"), std::string::npos) << message;
      EXPECT_EQ(content(path() / file), before);
    }
    if (signatures) {
      sink->write(signature(3));
    } else {
      sink->write(Metric{3, "loss", 0.5});
    }
  }
  const log::Run run = log::read_run(path());
  ASSERT_EQ(run.signatures.size(), 14u);
  ASSERT_EQ(run.metrics.size(), 14u);
  for (std::size_t i = 0; i < 14; ++i) {
    const std::int64_t step = i == 0 ? 1 : i < 13 ? 2 : 3;
    EXPECT_EQ(run.signatures[i].step, step);
    EXPECT_EQ(run.metrics[i].step, step);
  }
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(run.metrics[i + 1].value, static_cast<double>(i));
  for (const Signature& s : run.signatures) EXPECT_EQ(s.spectrum, signature(1).spectrum);
}

TEST_F(DirectoryTest, RowsThatStillWaitAtTheEndAreWrittenIfTheyCanBe) {
  {
    const auto sink = log::directory(path());
    sink->write(Metric{1, "loss", 0.5});
    const FileSizeLimit limit(fs::file_size(path() / "metrics.csv"));
    EXPECT_THROW(sink->write(Metric{2, "loss", 0.5}), IoError);
  }
  EXPECT_EQ(log::read_run(path()).metrics.size(), 2u);
}

TEST_F(DirectoryTest, RowsBeyondWhatMayWaitAreCounted) {
  const auto sink = log::directory(path());
  const std::string name(1 << 20, 'x');
  std::size_t thrown = 0;
  {
    const FileSizeLimit limit(fs::file_size(path() / "metrics.csv"));
    for (int i = 0; i < 20; ++i) {
      try {
        sink->write(Metric{i, name, 0});
      } catch (const IoError&) {
        ++thrown;
      }
    }
  }
  EXPECT_EQ(thrown, 20u);
  sink->write(Metric{20, "loss", 0.5});
  const log::Run run = log::read_run(path());
  EXPECT_EQ(run.metrics.size(), 16u) << "15 rows of a MiB and a little, and the one after them";
  EXPECT_EQ(test::described(run, "lost_rows"), 5);
}

TEST_F(DirectoryTest, ARowLargerThanAllThatMayWaitIsWritten) {
  const auto sink = log::directory(path());
  sink->write(Metric{1, std::string(std::size_t{20} << 20, 'x'), 0});
  EXPECT_EQ(log::read_run(path()).metrics.size(), 1u);
}

TEST_F(DirectoryTest, ADescriptionThatCannotBeWrittenWaitsToo) {
  const auto sink = log::directory(path());
  const std::string before = content(path() / "run.json");
  {
    const FileSizeLimit limit(fs::file_size(path() / "run.json"));
    EXPECT_THROW(sink->describe("options", R"("long")"), IoError);
    EXPECT_EQ(content(path() / "run.json"), before) << "the old one is whole";
  }
  sink->write(Metric{1, "loss", 0.5});
  EXPECT_EQ(test::described(log::read_run(path()), "options"), "long");
}

/// As if every file handle of the process was in use.
class NoMoreHandles {
 public:
  NoMoreHandles() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit limit{0, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~NoMoreHandles() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(DirectoryTest, WithoutFileHandlesRowsAreWrittenAndTheDescriptionWaits) {
  const auto sink = log::directory(path(), {.tensorboard = true});
  {
    const NoMoreHandles none;
    sink->write(signature(1));
    sink->write(Metric{1, "loss", 0.5});
    EXPECT_NE(message_of<IoError>([&] { sink->describe("seed", "7"); }).find("Too many open files"), std::string::npos);
    EXPECT_NE(message_of<IoError>([&] { log::directory(path("other")); }).find(path("other").string()),
              std::string::npos);
  }
  sink->write(Metric{2, "loss", 0.5});
  const log::Run run = log::read_run(path());
  EXPECT_EQ(run.signatures.size(), 1u);
  EXPECT_EQ(run.metrics.size(), 2u);
  EXPECT_EQ(test::described(run, "seed"), 7);
}

TEST_F(DirectoryTest, PutsAFolderBackThatIsDeletedUnderTheRun) {
  const auto sink = log::directory(path(), {.tensorboard = true});
  for (const int step : {1, 2, 3}) {
    sink->write(signature(step));
    sink->write(estimate(step));
    sink->write(Metric{step, "loss", 0.5});
    fs::remove_all(path());
  }
  sink->write(Metric{4, "loss", 0.5});
  const log::Run run = log::read_run(path());
  EXPECT_EQ(run.signatures.size(), 3u);
  EXPECT_EQ(run.signatures[0].spectrum, signature(1).spectrum);
  EXPECT_EQ(run.estimates.size(), 3u);
  EXPECT_EQ(run.metrics.size(), 4u);
  EXPECT_THROW(log::directory(path(), {.resume = true}), IoError) << "the lock is back too";
}

TEST_F(DirectoryTest, PutsBackOneFileOrTwoThatAreDeleted) {
  const char* const files[] = {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv", "run.json", ".lock"};
  const auto sink = log::directory(path());
  sink->describe("seed", "7");
  std::size_t rows = 0;
  for (const char* one : files) {
    for (const char* other : files) {
      fs::remove(path() / one);
      fs::remove(path() / other);
      sink->write(signature(1));
      sink->write(Metric{1, "loss", 0.5});
      ++rows;
      EXPECT_THROW(log::directory(path(), {.resume = true}), IoError) << "the lock is held again";
      const log::Run run = log::read_run(path());
      ASSERT_EQ(run.signatures.size(), rows) << one << " and " << other;
      ASSERT_EQ(run.metrics.size(), rows) << one << " and " << other;
      ASSERT_EQ(test::described(run, "seed"), 7);
    }
  }
}

TEST_F(DirectoryTest, PutsBackAllFilesThatAreNotHidden) {
  const auto sink = log::directory(path());
  for (const int step : {1, 2}) {
    sink->write(Metric{step, "loss", 0.5});
    for (const char* file : {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv", "run.json"})
      fs::remove(path() / file);
  }
  sink->write(signature(3));
  const log::Run run = log::read_run(path());
  EXPECT_EQ(run.metrics.size(), 2u);
  EXPECT_EQ(run.signatures.size(), 1u);
}

TEST_F(DirectoryTest, FollowsAFolderThatGetsAnotherName) {
  const auto sink = log::directory(path());
  fs::rename(path(), path("moved"));
  EXPECT_NO_THROW(sink->write(Metric{1, "loss", 0.5}));
  fs::create_directories(path());
  EXPECT_NO_THROW(sink->write(Metric{2, "loss", 0.5}));
  EXPECT_TRUE(fs::is_empty(path()));
  EXPECT_EQ(log::read_run(path("moved")).metrics.size(), 2u);
}

TEST_F(DirectoryTest, AForkedChildTakesTheRunOverOnceItsParentHasLeftIt) {
  auto sink = log::directory(path());
  sink->write(Metric{1, "loss", 0.5});
  int left[2];
  ASSERT_EQ(::pipe(left), 0);
  const pid_t child = test::start([&] {
    ::close(left[1]);
    char byte = 0;
    if (::read(left[0], &byte, 1) != 0) std::_Exit(1);
    sink->write(Metric{2, "loss", 0.5});
  });
  sink.reset();
  for (const int end : left) ::close(end);
  EXPECT_FALSE(test::was_killed(child));
  EXPECT_EQ(log::read_run(path()).metrics.size(), 2u);
}

TEST_F(DirectoryTest, AForkedChildDoesNotWriteIntoItsParentsRun) {
  const auto sink = log::directory(path());
  sink->write(Metric{1, "loss", 0.5});
  const std::string said = test::result_of([&] {
    return message_of<IoError>([&] { sink->write(Metric{2, "loss", 0.5}); });
  });
  EXPECT_NE(said.find("another run"), std::string::npos) << said;
  sink->write(Metric{3, "loss", 0.5});
  const log::Run run = log::read_run(path());
  ASSERT_EQ(run.metrics.size(), 2u);
  EXPECT_EQ(run.metrics[1].step, 3);
}

TEST_F(DirectoryTest, LeavesAnotherRunAloneThatTookTheDeletedFoldersPlace) {
  auto sink = log::directory(path());
  sink->write(Metric{1, "loss", 0.5});
  fs::remove_all(path());
  auto other = log::directory(path());
  other->write(Metric{7, "loss", 0.5});
  EXPECT_NE(message_of<IoError>([&] { sink->write(Metric{2, "loss", 0.5}); }).find("another run"), std::string::npos);
  other.reset();
  EXPECT_NE(message_of<IoError>([&] { sink->write(Metric{3, "loss", 0.5}); }).find("others' files"), std::string::npos);
  sink.reset();
  const log::Run run = log::read_run(path());
  ASSERT_EQ(run.metrics.size(), 1u);
  EXPECT_EQ(run.metrics[0].step, 7);
}

// ---- a run that goes on ----

TEST_F(DirectoryTest, WritesNoRowAgainThatSaysTheSame) {
  const auto log_steps = [&](std::int64_t first, std::int64_t last, double seconds, bool resume) {
    const auto sink = log::directory(path(), {.resume = resume});
    for (std::int64_t step = first; step < last; ++step) {
      Signature s = signature(step);
      s.seconds = seconds;
      if (step > first) s.born = 1;
      sink->write(s);
      LlcEstimate e = estimate(step);
      e.seconds = seconds;
      sink->write(e);
      sink->write(Metric{step, "loss", 0.5});
      sink->write(Metric{step, "read_seconds", seconds});
    }
  };
  log_steps(0, 6, 1, false);
  log_steps(4, 9, 2, true);
  log_steps(4, 10, 3, true);
  const log::Run run = log::read_run(path());
  ASSERT_EQ(run.signatures.size(), 10u);
  ASSERT_EQ(run.estimates.size(), 10u);
  ASSERT_EQ(run.metrics.size(), 20u);
  for (std::size_t i = 0; i < 10; ++i) {
    const double seconds = i < 6 ? 1 : i < 9 ? 2 : 3;
    EXPECT_EQ(run.signatures[i].step, static_cast<std::int64_t>(i));
    EXPECT_EQ(run.signatures[i].seconds, seconds);
    EXPECT_EQ(run.estimates[i].seconds, seconds);
  }
}

TEST_F(DirectoryTest, WritesARowThatSaysSomethingElseAndRowsThatStandTwice) {
  {
    const auto sink = log::directory(path());
    for (int i = 0; i < 2; ++i) sink->write(Metric{1, "loss", 0.5});  // twice, as the caller wishes
  }
  const auto sink = log::directory(path(), {.resume = true});
  for (int i = 0; i < 3; ++i) sink->write(Metric{1, "loss", 0.5});
  sink->write(Metric{1, "loss", 0.25});
  std::vector<double> values;
  for (const Metric& metric : log::read_run(path()).metrics) values.push_back(metric.value);
  EXPECT_EQ(values, (std::vector<double>{0.5, 0.5, 0.5, 0.25}));
}

TEST_F(DirectoryTest, ResumeRemovesWhatACrashLeftOfTheDescription) {
  log::directory(path())->describe("seed", "7");
  test::put(path() / "run.json.tmp-1", R"({"schema_)");
  log::directory(path(), {.resume = true});
  EXPECT_FALSE(fs::exists(path() / "run.json.tmp-1"));
}

TEST_F(DirectoryTest, OneThatCannotBeMadeWholeIsNotMade) {
  rlimit before;
  getrlimit(RLIMIT_NOFILE, &before);
  fs::create_directories(path());
  const int free = ::dup(0);
  ::close(free);
  // The lock and one file: run.json can be written, which is closed again, and not both files of signatures.
  const rlimit few{static_cast<rlim_t>(free) + 2, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &few);
  const std::string message = message_of<IoError>([&] { log::directory(path()); });
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_NE(message.find("Too many open files"), std::string::npos) << message;
  write_run(path());
  EXPECT_EQ(log::read_run(path()).signatures.size(), 3u);
}

TEST_F(DirectoryTest, ResumeForgetsTheRankThatWasLostBefore) {
  log::directory(path())->describe("lost_rank", "\"step 7\"");
  EXPECT_TRUE(log::read_run(path()).description.contains("lost_rank"));
  log::directory(path(), {.resume = true});
  EXPECT_FALSE(log::read_run(path()).description.contains("lost_rank"));
}

TEST_F(DirectoryTest, ReadingNamesFileAndLineOfWhatIsMalformed) {
  write_run(path());
  const std::string metrics = content(path() / "metrics.csv");
  test::put(path() / "metrics.csv", metrics + "40,loss\n50,loss,1\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("metrics.csv:5: a row: the number of fields is 2"),
            std::string::npos);
  test::put(path() / "metrics.csv", metrics + "40,lo\"ss,1\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("metrics.csv: line 5"), std::string::npos);
  test::put(path() / "metrics.csv", metrics);
  test::put(path() / "spectra.jsonl", content(path() / "spectra.jsonl") + "{]\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("spectra.jsonl:4"), std::string::npos);
  EXPECT_THROW(log::read_run(path("nowhere")), IoError);
}

// ---- hostile files ----

TEST_F(DirectoryTest, JsonThatIsDeepIsNoJson) {
  write_run(path());
  const std::string deep(2'000'000, '['), description = content(path() / "run.json");
  test::put(path() / "run.json", "{\"schema_version\": 4, \"a\": " + deep);
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("not a JSON object"), std::string::npos);
  test::put(path() / "run.json", description);
  test::put(path() / "spectra.jsonl", content(path() / "spectra.jsonl") + "{\"a\":" + deep + "\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("spectra.jsonl:4"), std::string::npos);
  const auto sink = log::directory(path("other"), {.tensorboard = true});
  EXPECT_THROW(sink->describe("key", deep), InvalidArgument);
  EXPECT_NO_THROW(sink->describe("key", std::string(100, '[') + std::string(100, ']')));
  EXPECT_NO_THROW(sink->describe("text", "\"\\\"" + deep + "\""));
}

TEST_F(DirectoryTest, AnObjectOfManyKeysIsRefused) {
  const auto object = [](int keys) {
    std::string text = R"({"schema_version":4)";
    for (int i = 1; i < keys; ++i) text += ",\"" + std::to_string(i) + "\":0";
    return text + "}";
  };
  write_run(path());
  test::put(path() / "run.json", object(200'000));
  const std::string message = message_of<IoError>([&] { log::read_run(path()); });
  EXPECT_NE(message.find("run.json: JSON: the number of keys of an object is above 4096, expected at most 4096"),
            std::string::npos)
      << message;
  EXPECT_THROW(log::directory(path(), {.resume = true}), IoError);
  test::put(path() / "run.json", object(4096));
  EXPECT_EQ(log::read_run(path()).description.size(), 4096u);

  const auto sink = log::directory(path("other"));
  EXPECT_THROW(sink->describe("key", object(4097)), InvalidArgument);
  EXPECT_NO_THROW(sink->describe("several", "[" + object(4096) + "," + object(4096) + "]"));
  EXPECT_NO_THROW(sink->describe("text", '"' + std::string(5000, ':') + '"'));
}

/// KiB that this process has taken at most so far.
long most_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST_F(DirectoryTest, ACsvFileIsReadNoFurtherThanItsFirstError) {
  write_run(path());
  const std::string metrics = content(path() / "metrics.csv");
  const auto said_of = [&](const std::string& text) {
    test::put(path() / "metrics.csv", text);
    return message_of<IoError>([&] { log::read_run(path()); });
  };
  // A misplaced quote stands at the end.
  EXPECT_NE(said_of("\nb\"c\n").find("metrics.csv:1: column '' is not known"), std::string::npos);
  EXPECT_NE(said_of(metrics + "40\nb\"c\n").find("metrics.csv:5: a row: the number of fields is 1, expected 3"),
            std::string::npos);
  [[maybe_unused]] const long before = most_memory();
  EXPECT_NE(said_of(std::string(20'000'000, '\n')).find("column ''"), std::string::npos);
  EXPECT_NE(said_of(std::string(20'000'000, ',') + "\n").find("line 1: the number of fields is above 1000"),
            std::string::npos);
  EXPECT_NE(said_of(metrics + "\n" + std::string(20'000'000, ',') + "\n").find(":5: a row: the number of fields is 1"),
            std::string::npos);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep what is freed, and copies of it
  EXPECT_LT(most_memory() - before, 200'000) << "KiB, for files of 20 MB";
#endif
}

TEST_F(DirectoryTest, APipeOrADeviceInAFilesPlaceIsNotRead) {
  write_run(path());
  fs::remove(path() / "metrics.csv");
  ASSERT_EQ(::mkfifo((path() / "metrics.csv").c_str(), 0600), 0);
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("no regular file"), std::string::npos);
  fs::remove(path() / "metrics.csv");
  fs::create_symlink("/dev/zero", path() / "metrics.csv");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("no regular file"), std::string::npos);
}

TEST(Sinks, CallbackTakesRowsAndTeePassesEverythingOn) {
  std::vector<std::int64_t> steps;
  const auto memory = std::make_shared<log::Memory>();
  const auto all = log::callback({.signature = [&](const Signature& s) { steps.push_back(s.step); },
                                  .estimate = [&](const LlcEstimate& e) { steps.push_back(e.step); },
                                  .metric = [&](const Metric& m) { steps.push_back(m.step); }});
  const auto signatures = log::callback([&](const Signature& s) { steps.push_back(s.step); });
  const auto sink = log::tee({all, signatures, memory});
  sink->write(signature(5));
  sink->write(estimate(6));
  sink->write(Metric{7, "loss", 1});
  sink->describe("seed", "3");
  EXPECT_EQ(steps, (std::vector<std::int64_t>{5, 5, 6, 7}));
  EXPECT_EQ(memory->signatures.size(), 1u);
  EXPECT_EQ(memory->estimates.size(), 1u);
  EXPECT_EQ(memory->metrics.size(), 1u);
  EXPECT_EQ(memory->description.at("seed"), "3");
  EXPECT_THROW(log::callback(nullptr), InvalidArgument);
  EXPECT_THROW(log::callback(log::Callbacks()), InvalidArgument);
  EXPECT_THROW(log::tee({nullptr}), InvalidArgument);
}

TEST(Sinks, TeeGivesEverySinkItsRowBeforeItThrows) {
  const auto memory = std::make_shared<log::Memory>();
  const auto sink = log::tee({log::callback([](const Signature&) { throw IoError("full"); }), memory});
  EXPECT_THROW(sink->write(signature(1)), IoError);
  EXPECT_EQ(memory->signatures.size(), 1u);
}

}  // namespace
}  // namespace dds
