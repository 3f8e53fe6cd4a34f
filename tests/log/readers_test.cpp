// What others read of the log: TensorBoard the event files, pandas the CSV files, each in its own Python. Skipped where
// `./tests/run --readers` has not installed them.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <dds/schema.hpp>
#include <map>
#include <nlohmann/json.hpp>

#include "src/log/record.hpp"
#include "tests/log/fixture.hpp"
#include "tests/paths.hpp"

namespace dds {
namespace {

using nlohmann::json;
using test::content;
using test::estimate;
using test::message_of;
using test::signature;
namespace fs = std::filesystem;

class ReadersTest : public test::LogTest {
 protected:
  /// What a script of tests/log/readers prints of `argument`.
  json read(const std::string& script, const fs::path& argument) const {
    const fs::path readers = test::kReaders, out = path("read.json"), error = path("read.error");
    const std::string command = "PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='" + readers.string() + "' '" +
                                (readers / "interpreter").string() + "' '" + test::kReaderScripts + "/" + script +
                                "' '" + argument.string() + "' >'" + out.string() + "' 2>'" + error.string() + "'";
    EXPECT_EQ(std::system(command.c_str()), 0) << content(error);
    return json::parse(content(out), nullptr, false);
  }
};

#define SKIP_WITHOUT_READERS()                               \
  if (!fs::exists(fs::path(test::kReaders) / "interpreter")) \
  GTEST_SKIP() << "./tests/run --readers installs TensorBoard and pandas"

/// Rows of all kinds, with all that may be missing, and numbers beyond fp32.
void write_rows(log::Sink& sink) {
  for (const std::int64_t step : std::initializer_list<std::int64_t>{0, 3, 100000000000}) {
    for (const Side side : {Side::Activation, Side::Fisher}) {
      Signature s = signature(step, "block.0/fc ü", side);
      s.log10_lambda_min_plus = -400.25 - static_cast<double>(step % 7);
      s.sigma_min = side == Side::Fisher ? 0 : 1e-60;
      if (side == Side::Fisher) s.fisher_kind = FisherKind{FisherKind::Sampled, 2};
      s.dead_directions = step % 5;
      s.at_floor = side == Side::Fisher;
      if (step == 3) s.born = 2, s.revived = 0;
      s.spectrum = side == Side::Fisher ? std::vector<double>{2, 0, 0.5, 1e-300, 2} : std::vector<double>{};
      sink.write(s);
    }
    LlcEstimate e = estimate(step, step == 3 ? LlcKind::Tilted : LlcKind::Plain);
    e.failures = step == 0 ? std::vector<std::string>{"r_hat 2"} : std::vector<std::string>{};
    e.low = -1.5;
    if (step == 0) e.standard_error.reset();
    sink.write(e);
    sink.write(Metric{step, "train/loss", 0.1});
  }
  Signature none;
  none.step = 3;
  none.layer = "head";
  none.status = Status::NotRun;
  sink.write(none);
  sink.write(Metric{4, "train/loss", std::nan("")});
}

/// {tag: {step: value}} of what TensorBoard is to find.
std::map<std::string, std::map<std::int64_t, float>> expected_scalars() {
  log::Memory memory;
  write_rows(memory);
  std::map<std::string, std::map<std::int64_t, float>> scalars;
  const auto add = [&](const std::string& tag, std::int64_t step, std::optional<double> value) {
    if (value && std::isfinite(*value)) scalars[tag][step] = static_cast<float>(*value);
  };
  const auto log10 = [](std::optional<double> v) { return v ? std::optional(std::log10(*v)) : v; };
  for (const Signature& s : memory.signatures) {
    if (!s.has_numbers()) continue;
    const std::string series = s.layer + (s.side == Side::Fisher ? "/fisher.read.sampled:2/" : "/activation.read/");
    add(series + "log10_sigma_max", s.step, log10(s.sigma_max));
    add(series + "log10_sigma_min", s.step, log10(s.sigma_min));
    add(series + "log10_floor", s.step, log10(s.floor));
    add(series + "log10_condition", s.step, log10(s.condition));
    add(series + "log10_lambda_min_plus", s.step, s.log10_lambda_min_plus);
    add(series + "log10_trace", s.step, s.log10_trace);
    add(series + "logdet_plus", s.step, s.logdet_plus);
    add(series + "logdet_fixed_rank", s.step, s.logdet_fixed_rank);
    add(series + "rank", s.step, *s.rank);
    add(series + "dead_directions", s.step, *s.dead_directions);
    if (s.born) add(series + "born", s.step, *s.born);
    if (s.revived) add(series + "revived", s.step, *s.revived);
    add(series + "at_floor", s.step, *s.at_floor);
    add(series + "effective_rank", s.step, s.effective_rank);
    add(series + "stable_rank", s.step, s.stable_rank);
  }
  for (const LlcEstimate& e : memory.estimates) {
    const std::string series = fmt::format("llc/{}/", to_string(e.kind));
    add(series + "lambda", e.step, e.lambda);
    add(series + "standard_error", e.step, e.standard_error);
    add(series + "low", e.step, e.low);
    add(series + "high", e.step, e.high);
    add(series + "converged", e.step, e.failures.empty());
    add(series + "log10_gamma", e.step, log10(e.settings.gamma));
  }
  for (const Metric& m : memory.metrics) add(m.name, m.step, m.value);
  return scalars;
}

TEST_F(ReadersTest, TensorBoardFindsEveryTagAndValue) {
  SKIP_WITHOUT_READERS();
  double clock = 1.6e9;
  {
    const auto sink = log::tensorboard(path("run"), {.wall_time = [&] { return clock += 0.25; }});
    write_rows(*sink);
    sink->describe("options", R"({"every": 10, "name": "ü"})");
  }
  const json found = read("events.py", path("run"));
  std::map<std::string, std::map<std::int64_t, float>> scalars;
  for (const auto& [tag, events] : found["scalars"].items()) {
    for (const json& event : events) {
      EXPECT_TRUE(scalars[tag].emplace(event[1], event[2].get<float>()).second) << tag << " twice at " << event[1];
      EXPECT_GT(event[0], 1.6e9);
      EXPECT_LE(event[0], clock);
    }
  }
  EXPECT_EQ(scalars, expected_scalars());
  EXPECT_EQ(found["plugins"], json({{"run/options", "text"}}));
  EXPECT_EQ(found["texts"]["run/options"][0][2], "    {\n      \"every\": 10,\n      \"name\": \"ü\"\n    }");

  ASSERT_EQ(found["histograms"].size(), 1u);
  for (const auto& [tag, events] : found["histograms"].items()) {
    EXPECT_EQ(tag, "block.0/fc ü/fisher.read.sampled:2/log10_sigma");
    ASSERT_EQ(events.size(), 3u);
    const json& histogram = events[1][2];  // of log10 {2, 0.5, 1e-300, 2}
    const double two = std::log10(2.0);
    EXPECT_EQ(events[1][1], 3);
    EXPECT_EQ(histogram["num"], 4);
    EXPECT_DOUBLE_EQ(histogram["min"], -300);
    EXPECT_DOUBLE_EQ(histogram["max"], two);
    EXPECT_DOUBLE_EQ(histogram["sum"], two - 300);
    EXPECT_DOUBLE_EQ(histogram["sum_squares"], 3 * two * two + 90000);
    const auto counts = histogram["bucket"].get<std::vector<double>>();
    const auto limits = histogram["bucket_limit"].get<std::vector<double>>();
    EXPECT_EQ(limits.size(), counts.size());
    EXPECT_TRUE(std::is_sorted(limits.begin(), limits.end()));
    EXPECT_EQ(limits.back(), histogram["max"].get<double>());
    EXPECT_EQ(counts.front(), 1);
    EXPECT_EQ(counts.back(), 3);
  }
}

TEST_F(ReadersTest, TensorBoardReadsARunThatWasKilledAndResumed) {
  SKIP_WITHOUT_READERS();
  {
    const auto sink = log::directory(path("run"), {.tensorboard = true});
    sink->write(Metric{1, "loss", 0.5});
    sink->write(Metric{2, "loss", 0.25});
  }
  for (const auto& entry : fs::directory_iterator(path("run"))) {
    if (entry.path().filename().string().starts_with("events.out.tfevents."))
      fs::resize_file(entry.path(), fs::file_size(entry.path()) - 3);
  }
  log::directory(path("run"), {.resume = true, .tensorboard = true})->write(Metric{3, "loss", 0.125});
  const json loss = read("events.py", path("run"))["scalars"]["loss"];
  ASSERT_EQ(loss.size(), 3u) << "the torn record is no event, its row gets another, and what follows is read";
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(loss[i][1], i + 1);
}

TEST_F(ReadersTest, EventFilesAreAsTheLogWhereTheyCannotBeWritten) {
  test::put(path("file"), "");
  EXPECT_NE(message_of<IoError>([&] { log::tensorboard(path("file")); }).find("file"), std::string::npos);
  EXPECT_NE(
      message_of<InvalidArgument>([&] { log::tensorboard(path("run"))->describe("key", "{"); }).find("expected JSON"),
      std::string::npos);
}

/// The type that pandas gives a column, of which some field is filled.
struct PandasType {
  std::string operator()(std::int64_t) const { return "int64"; }
  std::string operator()(double) const { return "float64"; }
  std::string operator()(std::optional<double>) const { return "float64"; }
  std::string operator()(std::optional<std::int64_t>) const { return "float64"; }  // for its missing ones
  std::string operator()(std::optional<bool>) const { return "object"; }           // True, False and NaN
  template <class Text>
  std::string operator()(const Text&) const {
    return "str";
  }
};

TEST_F(ReadersTest, PandasReadsTheTableOfSignaturesWithItsTypes) {
  SKIP_WITHOUT_READERS();
  log::Memory memory;
  write_rows(memory);
  memory.signatures.push_back(signature(5, "quoted, \"layer\"\nof two lines"));
  Signature& full = memory.signatures.back();
  full.reduction = "mean:3";
  full.logdet_plus = -31.5;  // of a column of which all numbers are whole pandas makes int64
  full.fixed_rank = 4;
  full.born = full.revived = 1;
  for (auto* value : {&full.sigma_min_plus, &full.logdet_fixed_rank, &full.cancellation, &full.condition,
                      &full.effective_rank, &full.stable_rank}) {
    *value = 1.0 / 3;
  }
  {
    const auto sink = log::directory(path("run"));
    for (const Signature& s : memory.signatures) sink->write(s);
  }
  const json frame = read("frame.py", path("run") / "signatures.csv");
  ASSERT_EQ(frame["rows"].size(), memory.signatures.size());
  std::size_t place = 0;
  for (const auto& column : schema::signature_columns) {
    EXPECT_EQ(frame["types"][std::string(column.name)],
              std::visit([](auto member) { return PandasType()(member.of(Signature())); }, column.field))
        << column.name;
    for (std::size_t row = 0; row < memory.signatures.size(); ++row) {
      const json cell = log::cell(memory.signatures[row], column);
      EXPECT_EQ(frame["rows"][row][place], cell) << column.name << " of row " << row;
    }
    ++place;
  }
}

}  // namespace
}  // namespace dds
