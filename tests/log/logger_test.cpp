// Messages reach the logger that was set, and nobody where none was.
#include "src/base/logger.hpp"

#include <dds/logger.hpp>
#include <dds/report.hpp>
#include <dds/run.hpp>
#include <stdexcept>

#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
using test::put;
using test::signature;

class LoggerTest : public test::LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    listen(Level::Debug);
  }
  void TearDown() override {
    set_logger(nullptr);
    LogTest::TearDown();
  }
  void listen(Level least) {
    set_logger(
        [this](Level level, std::string_view message) {
          heard_ += std::string(to_string(level)) + ": " + std::string(message) + "\n";
        },
        least);
  }
  std::string heard_;
};

TEST_F(LoggerTest, PassesOnWhatIsAsSevereAsWasAskedFor) {
  const Level all[] = {Level::Debug, Level::Info, Level::Warning, Level::Error};
  for (const Level least : all) {
    heard_.clear();
    listen(least);
    std::string expected;
    for (const Level level : all) {
      log::tell(level, "m");
      if (level >= least) expected += std::string(to_string(level)) + ": m\n";
    }
    EXPECT_EQ(heard_, expected);
  }
}

TEST_F(LoggerTest, IsQuietAgainWhereItWasTakenAway) {
  const Logger before = set_logger(nullptr);
  log::tell(Level::Error, "unheard");
  EXPECT_EQ(heard_, "");
  before(Level::Info, "by hand");
  EXPECT_EQ(heard_, "info: by hand\n") << "what was set before comes back";
}

TEST_F(LoggerTest, WhatALoggerThrowsHarmsNobody) {
  set_logger([](Level, std::string_view) { throw std::runtime_error("no disk"); });
  EXPECT_NO_THROW(log::tell(Level::Error, "message"));
}

TEST_F(LoggerTest, HearsOfTornRowsAndOfTheReport) {
  log::directory(path())->write(signature(1));
  EXPECT_EQ(heard_, "");
  put(path() / "signatures.csv", content(path() / "signatures.csv") + "2,fc1,Lin");
  log::directory(path(), {.resume = true});
  EXPECT_EQ(heard_, "warning: " + (path() / "signatures.csv").string() + ": 9 bytes of a torn row are cut off\n");
  heard_.clear();
  write_report(path());
  EXPECT_EQ(heard_, "info: wrote " + (path() / "report.html").string() + "\n");
}

}  // namespace
}  // namespace dds
