#include "experiments/harness/finished.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <fstream>
#include <sstream>

#include "experiments/harness/parallel.hpp"
#include "tests/support.hpp"

namespace dds::experiments {
namespace {

using nlohmann::json;
using test::message_of;
using testing::HasSubstr;

class FinishedPieces : public testing::Test {
 protected:
  FinishedPieces() {
    options_.experiment = "some";
    options_.out = testing::TempDir() + "dds_finished_" + std::to_string(getpid());
    std::filesystem::remove_all(options_.out);
  }
  ~FinishedPieces() override { std::filesystem::remove_all(options_.out); }

  std::filesystem::path file() const { return options_.out / "finished.jsonl"; }
  std::string content() const {
    std::ifstream in(file());
    return (std::stringstream() << in.rdbuf()).str();
  }
  /// Pieces that had to be made of {"a", "b", "c"}; each is its key twice.
  std::vector<std::string> make_all() const {
    Finished finished(options_);
    std::vector<std::string> made;
    for (const std::string key : {"a", "b", "c"}) {
      const json piece = finished.piece(key, [&] {
        made.push_back(key);
        return json{{"twice", key + key}};
      });
      EXPECT_EQ(piece["twice"], key + key);
    }
    return made;
  }

  RunOptions options_;
};

TEST_F(FinishedPieces, AreMadeOnce) {
  EXPECT_EQ(make_all().size(), 3u);
  EXPECT_TRUE(make_all().empty());
  EXPECT_EQ(Finished(options_).taken_over(), 3u);
}

// Wherever a crash cuts the file off, the pieces whose lines are whole are kept, and the file is whole again.
TEST_F(FinishedPieces, SurviveACutAnywhere) {
  make_all();
  const std::string whole = content();
  const std::size_t header = whole.find('\n') + 1;
  for (std::size_t length = header; length <= whole.size(); ++length) {
    std::ofstream(file(), std::ios::trunc) << whole.substr(0, length);
    const auto lines = std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length), '\n');
    EXPECT_EQ(make_all().size(), static_cast<std::size_t>(4 - lines)) << length;
    EXPECT_EQ(content(), whole) << length;
  }
}

TEST_F(FinishedPieces, OfAnotherRunAreRefused) {
  make_all();
  RunOptions other = options_;
  other.seed = 1;
  EXPECT_THAT(message_of([&] { Finished{other}; }), HasSubstr("\"seed\":0"));
  other = options_;
  other.preset = "full";
  EXPECT_THAT(message_of([&] { Finished{other}; }), HasSubstr("is of another run"));
}

TEST_F(FinishedPieces, ThatAreNoneAreRefused) {
  make_all();
  const std::string whole = content();
  for (const std::string line : {"[1, 2]", R"({"key": 1, "value": 2})", R"({"key": "d"})", "{", "\x80"}) {
    std::ofstream(file(), std::ios::trunc) << whole << line << '\n';
    EXPECT_THAT(message_of([&] { Finished{options_}; }), HasSubstr("'" + line + "' is no piece"));
  }
}

TEST_F(FinishedPieces, AreOfOneRunAtATime) {
  const Finished first(options_);
  EXPECT_THAT(message_of([&] { Finished{options_}; }), HasSubstr("another run"));
}

TEST_F(FinishedPieces, OfWorkThatThrowsAreNotKept) {
  Finished finished(options_);
  EXPECT_THROW(finished.piece("a", []() -> json { throw std::runtime_error("no"); }), std::runtime_error);
  EXPECT_EQ(finished.piece("a", [] { return json(7); }), json(7));
}

TEST_F(FinishedPieces, ComeFromSeveralThreads) {
  constexpr std::size_t n = 200;
  {
    Finished finished(options_);
    in_parallel(
        n, [&](std::size_t i) { return finished.piece(std::to_string(i), [&] { return json(i); }); },
        [](std::size_t) {});
  }
  Finished again(options_);
  EXPECT_EQ(again.taken_over(), n);
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_EQ(again.piece(std::to_string(i), [] { return json(-1); }), json(i));
  }
}

}  // namespace
}  // namespace dds::experiments
