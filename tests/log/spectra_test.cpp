// spectra.jsonl: every spectrum finds its row again, and lines without a row count for nothing.
#include "src/log/spectra.hpp"

#include <cmath>
#include <limits>

#include "src/log/csv.hpp"
#include "src/log/record.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

namespace fs = std::filesystem;
using test::content;
using test::message_of;
using test::put;
using test::signature;

class SpectraTest : public test::LogTest {
 protected:
  /// The rows as the CSV file has them, without spectra, and the lines of those that carry one.
  std::vector<Signature> rows(const std::vector<Signature>& signatures) const {
    std::vector<Signature> bare;
    std::string lines;
    for (const Signature& s : signatures) {
      bare.push_back(log::row_of<Signature>(log::csv::parse(log::csv_line(s)).records.at(0).fields));
      lines += log::spectrum_line(s);
    }
    put(path("lines"), lines);
    return bare;
  }
};

Signature with_spectrum(std::int64_t step, std::vector<double> spectrum, std::string layer = "fc1",
                        Side side = Side::Activation) {
  Signature s = signature(step, std::move(layer), side);
  s.spectrum = std::move(spectrum);
  return s;
}

TEST_F(SpectraTest, EverySpectrumFindsItsRow) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<Signature> written = {
      with_spectrum(1, {3, 1.0 / 3, 5e-324}),
      with_spectrum(1, {}),
      with_spectrum(1, {2}, "fc1", Side::Fisher),
      with_spectrum(1, {1.5}, "fc1", Side::Fisher),
      with_spectrum(2, {7, 0.1}, "caf\xe9,\"0\"\n"),  // no UTF-8
      with_spectrum(3, {4, nan}),
  };
  written[2].fisher_kind = FisherKind::Exact;
  written[3].fisher_kind = FisherKind{FisherKind::Sampled, 4};
  std::vector<Signature> read = rows(written);
  EXPECT_EQ(log::take_spectra(path("lines"), read), content(path("lines")).size());
  ASSERT_EQ(read.size(), written.size());
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(read[i].spectrum, written[i].spectrum) << i;
  ASSERT_EQ(read[5].spectrum.size(), 2u);
  EXPECT_TRUE(std::isnan(read[5].spectrum[1])) << "what is not finite is null";
}

TEST_F(SpectraTest, AReadingWithoutNumbersHasNone) {
  Signature none = with_spectrum(1, {3});
  none.rank.reset();
  EXPECT_EQ(log::spectrum_line(none), "");
  EXPECT_EQ(log::spectrum_line(with_spectrum(1, {})), "");
  // The step was read again after a crash, and then had numbers.
  std::vector<Signature> read = rows({none, with_spectrum(1, {5})});
  log::take_spectra(path("lines"), read);
  EXPECT_TRUE(read[0].spectrum.empty());
  EXPECT_EQ(read[1].spectrum, std::vector<double>{5});
}

TEST_F(SpectraTest, ALineWithoutARowDoesNotCount) {
  std::vector<Signature> read = rows({with_spectrum(1, {3}), with_spectrum(2, {4})});
  const std::size_t first = content(path("lines")).find('\n') + 1;
  read.pop_back();
  EXPECT_EQ(log::take_spectra(path("lines"), read), first);
  EXPECT_EQ(read[0].spectrum, std::vector<double>{3});
  put(path("lines"), content(path("lines")).substr(0, first + 20));  // torn
  EXPECT_EQ(log::take_spectra(path("lines"), read), first);
  EXPECT_EQ(log::take_spectra(path("nowhere"), read), 0u);
}

TEST_F(SpectraTest, WhatIsMalformedIsNamedWithItsLine) {
  std::vector<Signature> read = rows({with_spectrum(1, {3})});
  const std::string good = content(path("lines"));
  const auto said_of = [&](const std::string& line) {
    put(path("lines"), good + line + "\n");
    return message_of<IoError>([&] { log::take_spectra(path("lines"), read); });
  };
  EXPECT_NE(said_of("{]").find("lines:2: a spectrum: the line is no JSON object"), std::string::npos);
  EXPECT_NE(said_of(R"({"step":1})").find("lines:2: a spectrum: column layer is missing"), std::string::npos);
  EXPECT_NE(said_of(good.substr(0, good.find("[")) + "[\"x\"]}").find("lines:2: a spectrum: spectrum is [\"x\"]"),
            std::string::npos);
}

TEST_F(SpectraTest, WhatACrashLeftIsCutOffAndTheStepsAreWrittenAgain) {
  const auto run = [&](std::int64_t first, std::int64_t last) {
    const auto sink = log::directory(path(), {.resume = true});
    for (std::int64_t step = first; step < last; ++step) {
      sink->write(with_spectrum(step, {3.5 + static_cast<double>(step), 1}));
    }
  };
  run(0, 4);
  const std::string rows = content(path() / "signatures.csv");
  fs::resize_file(path() / "signatures.csv", rows.rfind("\n2,") + 1);  // two spectra were written, and not their rows
  run(1, 6);
  EXPECT_EQ(content(path() / "signatures.csv").substr(0, rows.size()), rows);
  const log::Run read = log::read_run(path());
  ASSERT_EQ(read.signatures.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(read.signatures[i].step, static_cast<std::int64_t>(i));
    EXPECT_EQ(read.signatures[i].spectrum, (std::vector<double>{3.5 + static_cast<double>(i), 1})) << i;
  }
  const std::string lines = content(path() / "spectra.jsonl");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 6);
}

}  // namespace
}  // namespace dds
