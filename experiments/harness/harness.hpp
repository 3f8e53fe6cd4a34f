// What every experiment shares: its command line, its progress on a terminal, its summary of claims.
#pragma once

#include <cstdint>
#include <dds/correlation.hpp>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/stopwatch.hpp"

namespace dds::experiments {

struct RunOptions {
  std::string experiment;
  std::string preset = "quick";
  std::filesystem::path out;  ///< made by the run; may hold an interrupted one, where the experiment keeps its pieces
  std::uint64_t seed = 0;
  bool full() const { return preset == "full"; }
};

/// Parses `[--preset quick|full] [--out DIR] [--seed N]`; `data`, if given, is filled by --data DIR. Prints help or an
/// error and exits where the command line asks for it.
RunOptions parse_command_line(int argc, char** argv, const std::string& experiment, const std::string& description,
                              std::filesystem::path* data = nullptr);

/// Runs an experiment: an error becomes one line on stderr and exit status 1.
int run_experiment(const std::function<void()>& body);

/// One line on a terminal with what goes on, the share done, and the time left; a line for each stage where stderr is
/// no terminal.
class Progress {
 public:
  /// `stages`: name and expected share of the whole time.
  explicit Progress(std::vector<std::pair<std::string, double>> stages);
  ~Progress();
  /// Stage `name` is done to the share `done`, 0 to 1.
  void update(const std::string& name, double done);
  /// The same for a stage of `of` pieces: takes how many are done. Must not outlive this.
  std::function<void(std::size_t done)> pieces(const std::string& name, std::size_t of);
  /// A line that stays.
  void say(const std::string& line);

 private:
  void draw(const std::string& name, double share);

  std::vector<std::pair<std::string, double>> stages_;
  Stopwatch watch_;
  double drawn_ = -1;  ///< when, by watch_
  bool terminal_;
  bool line_open_ = false;
};

/// A number as JSON has it: null where there is none, and back.
nlohmann::json number(const std::optional<double>& value);
std::optional<double> optional_number(const nlohmann::json& value);

/// A number and what it lies between: its 95 % interval, or the least and the largest, as its maker says.
struct Interval {
  double value = 0, low = 0, high = 0;
};
/// What is counted, not estimated.
inline Interval exactly(double value) { return {value, value, value}; }
/// `value` and as much to either side.
inline Interval about(double value, double half) { return {value, value - half, value + half}; }
/// The sum over the number of them, of which there is at least one.
double average(const std::vector<double>& values);
/// A mean with its 95 % interval; of fewer than four values none is given.
std::optional<Interval> mean_of(const std::vector<double>& values);
/// The mean between the least and the largest value; of no value there is none.
std::optional<Interval> range_of(const std::vector<double>& values);
/// A correlation with its interval, where there is one.
std::optional<Interval> interval_of(const RankCorrelation& correlation);
/// A share of so many, at least one, with Wilson's interval.
Interval wilson(std::int64_t hits, std::int64_t of);

/// A statement and what the run says of it. `holds`: the interval [low, high] of `measured` lies within the goal; null
/// where something is missing.
struct Claim {
  std::string id;
  std::string statement;
  std::optional<double> paper;
  std::optional<double> predicted;
  std::optional<double> measured;
  std::optional<double> low;
  std::optional<double> high;
  std::optional<double> goal_low;
  std::optional<double> goal_high;

  std::optional<bool> holds() const;
};

/// A claim with what was measured for it: nothing, where there is no number or one that is not finite.
Claim claim_of(std::string id, std::string statement, const std::optional<Interval>& measured = std::nullopt);
/// ... with a goal.
Claim within(Claim claim, double predicted, double tolerance);
Claim at_most(Claim claim, double goal);

/// summary.json of a run (src/docs/the_method.md, summary.json).
class Summary {
 public:
  explicit Summary(const RunOptions& options);
  void add(Claim claim);
  const std::vector<Claim>& claims() const { return claims_; }
  /// Writes options.out / summary.json, whole or not at all, and prints the claims to stdout.
  void write() const;

 private:
  RunOptions options_;
  std::vector<Claim> claims_;
  Stopwatch watch_;
};

}  // namespace dds::experiments
