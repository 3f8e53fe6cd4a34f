// The page holds the run and needs nothing from outside; what it says of DDS against LLC is what the rows say.
#include <algorithm>
#include <cmath>
#include <dds/report.hpp>
#include <nlohmann/json.hpp>

#include "src/log/comparison.hpp"
#include "src/log/findings.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
using test::estimate;
using test::message_of;
using test::signature;
namespace fs = std::filesystem;

class ReportTest : public test::LogTest {};

/// Of eight checkpoints, all but the first with a converged tilted estimate, and two with a plain one.
log::Run run_of_eight() {
  log::Run run;
  const double readings[] = {9, 8, 6, 7, 4, 5, 3, 2};
  for (int i = 0; i < 8; ++i) {
    Signature s = signature(i * 10);
    s.sigma_min = readings[i];
    run.signatures.push_back(s);
    s.source = Source::Step;
    s.sigma_min = -1;
    run.signatures.push_back(s);
    LlcEstimate tilted = estimate(i * 10, LlcKind::Tilted);
    tilted.lambda = i * i;
    if (i == 0) tilted.failures = {"r_hat 2"};
    run.estimates.push_back(tilted);
    if (i >= 6) run.estimates.push_back(estimate(i * 10, LlcKind::Plain));
  }
  return run;
}

const log::Comparison& find(const std::vector<log::Comparison>& all, std::string_view measure, LlcKind kind) {
  return *std::find_if(all.begin(), all.end(),
                       [&](const auto& c) { return c.measure->key == measure && c.kind == kind; });
}

TEST_F(ReportTest, ComparesCheckpointReadsWithConvergedEstimatesOfOneKind) {
  const log::Run run = run_of_eight();
  const auto comparisons = log::compare(run);
  const auto& tilted = find(comparisons, "sigma_min", LlcKind::Tilted);
  EXPECT_EQ(tilted.pairs.size(), 8u);
  const std::vector<double> readings = {8, 6, 7, 4, 5, 3, 2}, lambdas = {1, 4, 9, 16, 25, 36, 49};
  EXPECT_EQ(tilted.raw.n, 7);
  EXPECT_EQ(tilted.raw.rho, spearman(readings, lambdas).rho);
  EXPECT_FALSE(tilted.detrended.rho) << "the LLC is in the order of the steps";
  const auto& plain = find(comparisons, "sigma_min", LlcKind::Plain);
  EXPECT_EQ(plain.raw.n, 2);
  EXPECT_FALSE(plain.raw.rho);
}

TEST_F(ReportTest, TakesReadingsOnTheFloorAsTies) {
  log::Run run = run_of_eight();
  for (Signature& s : run.signatures) s.at_floor = s.step >= 40;
  const auto comparisons = log::compare(run);
  const std::vector<double> tied = {8, 6, 7, 0, 0, 0, 0}, lambdas = {1, 4, 9, 16, 25, 36, 49};
  EXPECT_EQ(find(comparisons, "sigma_min", LlcKind::Tilted).raw.rho, spearman(tied, lambdas).rho);
}

TEST_F(ReportTest, FindingsRestOnTheRows) {
  log::Run run = run_of_eight();
  run.metrics = {{0, "test_accuracy", 0.1}, {70, "test_accuracy", 0.885}};
  run.signatures[14].dead_directions = 3;
  for (std::size_t i = 0; i < run.signatures.size(); ++i) {
    run.signatures[i].born = i == 4 || i == 8 ? 2 : 0;  // every other row is of the same series
    run.signatures[i].revived = i == 8 ? 1 : 0;
  }
  std::string text;
  for (const std::string& finding : log::findings(run, log::compare(run), {})) text += finding + "\n";
  EXPECT_NE(text.find("test_accuracy ends at 0.885 (step 70)"), std::string::npos) << text;
  EXPECT_NE(text.find("3 of 10 in fc1"), std::string::npos) << text;
  EXPECT_NE(text.find("fc1, activation side (read): 4 dimensions died between steps 10 and 40, 1 came to life."),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("7 of 8 tilted"), std::string::npos) << text;
  EXPECT_NE(text.find("2 of 2 plain"), std::string::npos) << text;
  EXPECT_TRUE(log::findings({}, {}, {}).empty());
}

/// What the page was told of its runs.
nlohmann::json runs_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin))["runs"];
}

/// Twelve readings of rank three; the last eigenvalue falls where `dies`.
void put_falling(log::Sink& sink, const std::string& layer, bool dies) {
  for (int i = 0; i < 12; ++i) {
    Signature s = signature(10 * i, layer, Side::Fisher);
    s.fisher_kind = FisherKind::Exact;
    s.rank = 3;
    s.spectrum = {3, 1, dies ? std::pow(10, -1 - 0.2 * i) : 0.5};
    sink.write(s);
  }
}

TEST_F(ReportTest, FindingsTellWhenDirectionsWereLost) {
  log::Run run;
  const std::int64_t dead[] = {1, 0, 0, 1, 3, 3, 2};
  for (int i = 6; i >= 0; --i) {  // in no order of steps, as a resumed run may be
    Signature s = signature(100 * i, "fc1");
    s.dead_directions = dead[i];
    run.signatures.push_back(s);
    s.layer = "fc2";
    s.dead_directions = 2;
    run.signatures.push_back(s);
    s.source = Source::Step;
    s.dead_directions = i;
    run.signatures.push_back(s);
  }
  std::string text;
  for (const std::string& finding : log::findings(run, {}, {})) text += finding + "\n";
  EXPECT_NE(
      text.find("fc1, activation side (read): lost 3 directions between steps 200 and 400 (dead: 0, then 3 of 10)."),
      std::string::npos)
      << text;
  EXPECT_EQ(text.find("fc2, activation side (read): lost"), std::string::npos) << text;
}

TEST_F(ReportTest, CountsTheDirectionsThatDieFromTheLogAlone) {
  {
    const auto sink = log::directory(path());
    put_falling(*sink, "fc1", true);
    put_falling(*sink, "fc2", false);
  }
  const auto counts = decay_counts(path());
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].count, 1) << counts[0].statement();
  EXPECT_EQ(counts[0].series, (SeriesId{"fc1", Side::Fisher, Source::Read, FisherKind::Exact}));
  EXPECT_NEAR(*counts[0].volume_ratio, 1, 1e-9);
  EXPECT_EQ(counts[1].status, DecayStatus::NoDecay);
  EXPECT_EQ(decay_counts(path(), DecayOptions().last_step(30)).at(0).status, DecayStatus::TooFewReadings);
  EXPECT_NE(message_of<InvalidArgument>([&] { decay_counts(path(), DecayOptions().confidence(2)); }).find("confidence"),
            std::string::npos);
  message_of<IoError>([&] { decay_counts(path("nowhere")); });
  {
    const auto sink = log::directory(path("bare"));
    Signature bare = signature(0, "fc1", Side::Fisher);
    bare.spectrum.clear();
    sink->write(bare);
  }
  EXPECT_NE(message_of<InvalidArgument>([&] { decay_counts(path("bare")); }).find("spectra(true)"), std::string::npos);

  write_report(path());
  const auto data = runs_of(content(path() / "report.html"))[0];
  EXPECT_EQ(data["counts"][0]["count"], 1);
  EXPECT_EQ(data["counts"][0]["layer"], "fc1");
  EXPECT_TRUE(data["counts"][1]["count"].is_null());
  std::string findings;
  for (const auto& finding : data["findings"]) findings += finding.get<std::string>();
  EXPECT_NE(findings.find("Directions die in 1 of 2 series"), std::string::npos) << findings;
}

TEST_F(ReportTest, NeverComparesTwoKindsOfFisherAtOnce) {
  log::Run run = run_of_eight();
  run.signatures.clear();
  for (int i = 0; i < 8; ++i) {
    for (const FisherKind kind : {FisherKind::Exact, FisherKind::Empirical}) {
      Signature s = signature(i * 10, "fc1", Side::Fisher);
      s.fisher_kind = kind;
      s.log10_lambda_min_plus = kind == FisherKind::Exact ? -i : i;
      run.signatures.push_back(s);
    }
  }
  const auto comparisons = log::compare(run);
  EXPECT_DOUBLE_EQ(*find(comparisons, "lambda_fisher", LlcKind::Tilted).raw.rho, -1) << "the kind that was read first";
}

TEST_F(ReportTest, HoldsTheDataAndFetchesNothing) {
  const std::string name = "</script><!-- \"{{plotly}}\" -->";
  {
    const auto sink = log::directory(path());
    sink->write(signature(10, name));
    Signature missing = signature(20, name);
    missing.sigma_min.reset();
    sink->write(missing);
    sink->write(estimate(10));
    sink->write(Metric{10, "test_accuracy", 0.875});
    sink->describe("model", "\"a model\"");
    EXPECT_EQ(write_report(path()), path() / "report.html") << "while the run is being written";
  }
  const std::string page = content(path() / "report.html");
  const auto data = runs_of(page)[0];
  EXPECT_EQ(data["signatures"]["layer"], (std::vector<std::string>{name, name}));
  EXPECT_EQ(data["signatures"]["sigma_min"][0], 0.1);
  EXPECT_TRUE(data["signatures"]["sigma_min"][1].is_null());
  EXPECT_EQ(data["spectra"]["0"], signature(10).spectrum);
  EXPECT_EQ(data["llc"]["lambda"][0], 19.75);
  EXPECT_EQ(data["metrics"]["value"][0], 0.875);
  EXPECT_EQ(data["run"]["model"], "a model");
  EXPECT_EQ(data["name"], "run");
  EXPECT_NE(page.find("plotly.js v"), std::string::npos);
  for (const char* fetching : {"<script src", "<link", "<img", "<iframe", "@import"}) {
    // The chart library is quoted as it is; what it holds of such text is in its strings.
    EXPECT_EQ(page.substr(0, page.find("plotly.js v")).find(fetching), std::string::npos) << fetching;
    EXPECT_EQ(page.substr(page.rfind("<script>")).find(fetching), std::string::npos) << fetching;
  }
  EXPECT_EQ(page.find("<script src"), std::string::npos);
}

TEST_F(ReportTest, OfARunWithoutRowsIsAPage) {
  log::directory(path());
  write_report(path());
  EXPECT_TRUE(runs_of(content(path() / "report.html"))[0]["comparisons"].empty());
}

TEST_F(ReportTest, LeavesTheOldPageWhereTheRunIsMalformed) {
  log::directory(path())->write(signature(1));
  test::put(path() / "report.html", "old");
  test::put(path() / "llc.csv", content(path() / "llc.csv") + "1,plain\n");
  EXPECT_NE(message_of<IoError>([&] { write_report(path()); }).find("llc.csv:2"), std::string::npos);
  EXPECT_EQ(content(path() / "report.html"), "old");
}

TEST_F(ReportTest, NamesADirectoryThatHoldsNoRun) {
  EXPECT_NE(message_of<IoError>([&] { write_report(path("nowhere")); }).find(path("nowhere").string()),
            std::string::npos);
  fs::create_directories(path("empty"));
  EXPECT_NE(message_of<IoError>([&] { write_report(path("empty")); }).find("holds no run"), std::string::npos);
}

}  // namespace
}  // namespace dds
