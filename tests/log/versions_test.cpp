// The promise of <dds/schema.hpp>: logs of every version of the format are read. tests/log/versions/N is a run that the
// library wrote when its schema_version was N (1: commit 328b218).
#include <algorithm>
#include <dds/report.hpp>
#include <dds/run.hpp>
#include <dds/schema.hpp>
#include <nlohmann/json.hpp>

#include "src/log/record.hpp"
#include "tests/log/fixture.hpp"
#include "tests/paths.hpp"

namespace dds {
namespace {

using test::content;
using test::message_of;
namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv"};

fs::path log_of(std::int64_t version) { return fs::path(test::kLogVersions) / std::to_string(version); }

/// What each of the logs holds, as far as its version had a place for it.
void write_sample(log::Sink& sink) {
  sink.describe("seed", "7");
  for (const std::int64_t step : {0, 10}) {
    for (const Side side : {Side::Activation, Side::Fisher}) {
      Signature s;
      s.step = step;
      s.layer = "block,\"0\"";
      s.kind = "Linear";
      s.side = side;
      s.source = Source::Read;
      if (side == Side::Fisher) s.fisher_kind = FisherKind::Exact;
      s.row_mode = RowMode::Sample;
      s.dtype = at::kDouble;
      s.calls = 1;
      s.rows = 9;
      s.width = 4;
      s.sigma_max = 3.5;
      s.sigma_min = 1e-300;
      s.sigma_min_plus = 0.5;
      s.log10_lambda_min_plus = -4.75;
      s.log10_trace = 0.25;
      s.logdet_plus = -31;
      s.rank = 3;
      s.structural_bound = 4;
      s.dead_directions = 1;
      s.floor = 1e-14;
      s.at_floor = true;
      s.effective_rank = 2.5;
      if (step == 10) s.status = Status::Coupled;
      s.seconds = 0.0015;
      s.spectrum = {3.5, 1.0 / 3, 0.5, 1e-300};
      sink.write(s);
    }
    LlcEstimate e;
    e.step = step;
    e.kind = step == 0 ? LlcKind::Plain : LlcKind::Tilted;
    e.lambda = 9.75;
    e.standard_error = 0.3;
    e.gamma = 1000;
    e.n_beta = 492.4;
    e.acceptance = 0.5;
    e.seed = 18446744073709551615u;
    e.replicas = "clone";
    if (step == 0) e.failures = {"r_hat 2", "ess 3"};
    e.seconds = 7;
    sink.write(e);
    sink.write(Metric{step, "loss", 0.5 - static_cast<double>(step) / 100});
  }
}

class LogVersions : public testing::TestWithParam<std::int64_t> {};

TEST_P(LogVersions, AreRead) {
  log::Memory expected;
  write_sample(expected);
  const log::Run run = log::read_run(log_of(GetParam()));
  EXPECT_EQ(run.schema_version, GetParam());
  EXPECT_EQ(test::described(run, "seed"), 7);
  ASSERT_EQ(run.signatures.size(), 4u);
  ASSERT_EQ(run.signatures.size(), expected.signatures.size());
  ASSERT_EQ(run.estimates.size(), expected.estimates.size());
  ASSERT_EQ(run.metrics.size(), expected.metrics.size());
  for (std::size_t i = 0; i < run.signatures.size(); ++i) {
    EXPECT_EQ(log::csv_line(run.signatures[i]), log::csv_line(expected.signatures[i]));
    EXPECT_EQ(run.signatures[i].spectrum, expected.signatures[i].spectrum);
  }
  for (std::size_t i = 0; i < run.estimates.size(); ++i)
    EXPECT_EQ(log::csv_line(run.estimates[i]), log::csv_line(expected.estimates[i]));
  for (std::size_t i = 0; i < run.metrics.size(); ++i)
    EXPECT_EQ(log::csv_line(run.metrics[i]), log::csv_line(expected.metrics[i]));
}

INSTANTIATE_TEST_SUITE_P(All, LogVersions, testing::Range<std::int64_t>(1, schema::kVersion + 1));

class LogVersionsTest : public test::LogTest {
 protected:
  void copy(std::int64_t version) const {
    fs::remove_all(path());
    fs::copy(log_of(version), path(), fs::copy_options::recursive);
  }
};

// A change of the format that forgets to count the version up fails here.
TEST_F(LogVersionsTest, TheLastIsWhatIsWrittenNow) {
  {
    const log::SinkPtr sink = log::directory(path());
    write_sample(*sink);
  }
  for (const char* file : kFiles) {
    EXPECT_EQ(content(path() / file), content(log_of(schema::kVersion) / file))
        << file << " is written otherwise than schema version " << schema::kVersion << " has it: see CONTRIBUTING.md";
  }
}

TEST_F(LogVersionsTest, EarlierOnesAreReportedOnAndNotResumed) {
  for (std::int64_t version = 1; version < schema::kVersion; ++version) {
    copy(version);
    EXPECT_NO_THROW(write_report(path()));
    const std::string before = content(path() / "llc.csv");
    const std::string message = message_of<IoError>([&] { log::directory(path(), {.resume = true}); });
    EXPECT_NE(message.find("version " + std::to_string(version)), std::string::npos) << message;
    EXPECT_EQ(content(path() / "llc.csv"), before);
  }
}

TEST_F(LogVersionsTest, LaterOnesAndThoseThatAreNoneAreRefused) {
  for (const char* version : {"3000000000", "0", "-1", "1.5", "\"2\"", "null", "[]"}) {
    copy(schema::kVersion);
    test::put(path() / "run.json", std::string("{\"schema_version\": ") + version + "}");
    const std::string message = message_of<IoError>([&] { log::read_run(path()); });
    EXPECT_NE(message.find(version), std::string::npos) << message;
  }
}

TEST_F(LogVersionsTest, ColumnsOfEarlierOnesAreTakenByName) {
  copy(1);
  test::put(path() / "metrics.csv", "value,step,name\n0.25,3,loss\n");
  EXPECT_EQ(log::read_run(path()).metrics.at(0).value, 0.25);
  test::put(path() / "metrics.csv", "step,name\n3,loss\n");
  EXPECT_EQ(log::read_run(path()).metrics.at(0).name, "loss");
  test::put(path() / "metrics.csv", "step,name,weight\n3,loss,1\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("'weight' is not known"), std::string::npos);
  test::put(path() / "metrics.csv", "step,name,step\n3,loss,1\n");
  EXPECT_NE(message_of<IoError>([&] { log::read_run(path()); }).find("'step' is there twice"), std::string::npos);
}

}  // namespace
}  // namespace dds
