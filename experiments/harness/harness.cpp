#include "experiments/harness/harness.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <dds/error.hpp>
#include <dds/fit.hpp>
#include <iostream>
#include <numeric>

#include "src/log/file.hpp"

namespace dds::experiments {

namespace {

/// Whether the standard output took all that was printed.
bool output_taken() {
  const bool lost = std::ferror(stdout) != 0;
  return std::fflush(stdout) == 0 && !lost;
}

}  // namespace

RunOptions parse_command_line(int argc, char** argv, const std::string& experiment, const std::string& description,
                              std::filesystem::path* data) {
  RunOptions options;
  options.experiment = experiment;
  options.out = std::filesystem::path("experiments") / "out" / experiment;
  CLI::App app(description, experiment);
  app.add_option("--preset", options.preset, "how much is run")
      ->check(CLI::IsMember({"quick", "full"}))
      ->capture_default_str();
  app.add_option("--out", options.out,
                 "folder for tables, figures and summary.json: a new one, or that of an interrupted run")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "seed of everything random")->capture_default_str();
  if (data) app.add_option("--data", *data, "folder of the data set")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    std::exit(output_taken() ? code : 1);
  }
  return options;
}

int run_experiment(const std::function<void()>& body) {
  try {
    body();
    if (!output_taken()) throw IoError("the standard output did not take all that was printed");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());  // does not throw where nobody reads it
    return 1;
  }
}

Progress::Progress(std::vector<std::pair<std::string, double>> stages)
    : stages_(std::move(stages)), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (line_open_) std::fputs("\n", stderr);
}

void Progress::update(const std::string& name, double done) {
  double before = 0, total = 0, of_this = 0;
  bool passed = false;
  for (const auto& [stage, share] : stages_) {
    total += share;
    if (stage == name) {
      passed = true;
      of_this = share;
    } else if (!passed) {
      before += share;
    }
  }
  draw(name, (before + done * of_this) / total);
}

std::function<void(std::size_t done)> Progress::pieces(const std::string& name, std::size_t of) {
  return [this, name, of](std::size_t done) { update(name, static_cast<double>(done) / static_cast<double>(of)); };
}

void Progress::draw(const std::string& name, double share) {
  const double elapsed = watch_.seconds();
  if (!terminal_ || elapsed - drawn_ < 0.2) return;
  drawn_ = elapsed;
  const double left = share > 0.01 ? elapsed * (1 - share) / share : 0;
  const std::string line = fmt::format("\r\x1b[K{:3.0f} %  {:.0f} s, {} left  {}", 100 * share, elapsed,
                                       share > 0.01 ? fmt::format("about {:.0f} s", left) : "time unknown", name);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  line_open_ = true;
}

void Progress::say(const std::string& line) {
  if (line_open_) std::fputs("\r\x1b[K", stderr);
  line_open_ = false;
  fmt::print(stdout, "{}\n", line);
  std::fflush(stdout);
}

nlohmann::json number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? nlohmann::json(*value) : nlohmann::json();
}

std::optional<double> optional_number(const nlohmann::json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

std::optional<bool> Claim::holds() const {
  if (!measured || !low || !high || (!goal_low && !goal_high)) return std::nullopt;
  return (!goal_low || *low >= *goal_low) && (!goal_high || *high <= *goal_high);
}

Claim claim_of(std::string id, std::string statement, const std::optional<Interval>& measured) {
  Claim claim;
  claim.id = std::move(id);
  claim.statement = std::move(statement);
  if (measured && std::isfinite(measured->value)) {
    claim.measured = measured->value;
    claim.low = measured->low;
    claim.high = measured->high;
  }
  return claim;
}

Claim within(Claim claim, double predicted, double tolerance) {
  claim.predicted = predicted;
  claim.goal_low = predicted - tolerance;
  claim.goal_high = predicted + tolerance;
  return claim;
}

Claim at_most(Claim claim, double goal) {
  claim.goal_high = goal;
  return claim;
}

double average(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::optional<Interval> mean_of(const std::vector<double>& values) {
  if (values.size() < 4) return std::nullopt;
  const MeanEstimate mean = estimate_mean(values);
  return Interval{mean.mean, mean.low, mean.high};
}

std::optional<Interval> range_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  const auto [least, largest] = std::minmax_element(values.begin(), values.end());
  return Interval{average(values), *least, *largest};
}

std::optional<Interval> interval_of(const RankCorrelation& correlation) {
  if (!correlation.rho) return std::nullopt;
  return Interval{*correlation.rho, *correlation.low, *correlation.high};
}

Interval wilson(std::int64_t hits, std::int64_t of) {
  const double n = static_cast<double>(of), p = static_cast<double>(hits) / n, z = 1.96;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

Summary::Summary(const RunOptions& options) : options_(options) { log::make_folder(options_.out); }

void Summary::add(Claim claim) { claims_.push_back(std::move(claim)); }

void Summary::write() const {
  using nlohmann::ordered_json;
  ordered_json claims = ordered_json::array();
  for (const Claim& claim : claims_) {
    const std::optional<bool> holds = claim.holds();
    claims.push_back({{"id", claim.id},
                      {"statement", claim.statement},
                      {"paper", number(claim.paper)},
                      {"predicted", number(claim.predicted)},
                      {"measured", number(claim.measured)},
                      {"low", number(claim.low)},
                      {"high", number(claim.high)},
                      {"goal_low", number(claim.goal_low)},
                      {"goal_high", number(claim.goal_high)},
                      {"holds", holds ? ordered_json(*holds) : ordered_json(nullptr)}});
  }
  const ordered_json summary{
      {"experiment", options_.experiment}, {"preset", options_.preset}, {"seed", options_.seed},
      {"libtorch", TORCH_VERSION},         {"device", "cpu"},           {"threads", at::get_num_threads()},
      {"wall_seconds", watch_.seconds()},  {"claims", claims},
  };
  log::replace_file(options_.out / "summary.json", summary.dump(2) + '\n');

  const auto text = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.4g}", *value) : std::string("-");
  };
  fmt::print("\n{:<52} {:>10} {:>10} {:>21} {:>6}\n", "claim", "paper", "measured", "interval", "holds");
  for (const Claim& claim : claims_) {
    const std::optional<bool> holds = claim.holds();
    fmt::print("{:<52} {:>10} {:>10} {:>21} {:>6}\n", claim.id, text(claim.paper), text(claim.measured),
               claim.low && claim.high ? fmt::format("[{:.4g}, {:.4g}]", *claim.low, *claim.high) : "-",
               holds ? (*holds ? "yes" : "no") : "-");
  }
}

}  // namespace dds::experiments
