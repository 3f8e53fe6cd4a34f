// Several processes that train one network by data parallelism over Gloo, and read it together: their signatures
// against those of one process on the same rows, what the reading costs, and what becomes of it when a rank dies or
// hangs.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <dds/run.hpp>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "experiments/distributed/processes.hpp"
#include "experiments/distributed/training.hpp"
#include "experiments/harness/harness.hpp"

namespace {

using namespace std::chrono_literals;
using dds::experiments::at_most;
using dds::experiments::Claim;
using dds::experiments::claim_of;
using dds::experiments::exactly;
using dds::experiments::Progress;
using dds::experiments::Rendezvous;
using dds::experiments::RunOptions;
using dds::experiments::Summary;
using distributed::Job;
using distributed::Outcome;
using distributed::Process;
using Folder = std::filesystem::path;

// ---- one rank ----

/// In the environment of a process that is one rank of several: what it has to do, as JSON.
constexpr const char* kTask = "DDS_DISTRIBUTED_TASK";

void be_a_rank(const nlohmann::json& task) {
  torch::set_num_threads(1);
  Rendezvous rendezvous{.store = task.at("store"),
                        .address = task.at("address"),
                        .rank = task.at("rank"),
                        .size = task.at("size"),
                        .timeout = std::chrono::milliseconds(task.at("timeout").get<std::int64_t>())};
  const Folder out = task.at("out").get<std::string>();
  const auto split = fashion_mnist::load(task.at("data").get<std::string>(), "t10k");
  const Outcome outcome = distributed::train(task.at("job"), split, dds::experiments::join(rendezvous), out);
  std::ofstream(out / fmt::format("outcome-{}.json", rendezvous.rank)) << nlohmann::json(outcome).dump(2) << "\n";
}

// ---- all of them ----

/// How ranks are laid out and find each other.
struct Arrangement {
  std::string name;
  int ranks;
  bool tcp;         ///< a TCPStore; else a FileStore
  bool namespaced;  ///< each rank in a network namespace of its own
};

struct Setting {
  Folder data;
  std::chrono::milliseconds timeout;
};

/// Starts all ranks, waits until those that can end have, and returns their exit statuses; empty: still there.
std::vector<std::optional<int>> run_ranks(const Arrangement& arrangement, const Job& job, const Setting& setting,
                                          const Folder& out) {
  std::filesystem::create_directories(out);
  std::unique_ptr<distributed::Namespaces> namespaces;
  if (arrangement.namespaced) namespaces = std::make_unique<distributed::Namespaces>(arrangement.ranks);
  const auto address = [&](int rank) { return namespaces ? namespaces->address(rank) : std::string("127.0.0.1"); };
  const std::string store = arrangement.tcp ? fmt::format("tcp:{}:{}", address(0), distributed::free_port())
                                            : "file:" + (out / "store").string();
  std::vector<Process> processes;
  for (int rank = 0; rank < arrangement.ranks; ++rank) {
    const nlohmann::json task{{"store", store},
                              {"address", address(rank)},
                              {"rank", rank},
                              {"size", arrangement.ranks},
                              {"timeout", setting.timeout.count()},
                              {"out", out.string()},
                              {"data", setting.data.string()},
                              {"job", job}};
    std::vector<std::string> command = namespaces ? namespaces->enter(rank) : std::vector<std::string>();
    command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
    processes.emplace_back(command, std::vector<std::string>{fmt::format("{}={}", kTask, task.dump())});
  }
  std::vector<std::optional<int>> statuses;
  for (int rank = 0; rank < arrangement.ranks; ++rank) {
    const bool stopped = job.fate == SIGSTOP && rank == job.victim;
    statuses.push_back(processes[static_cast<std::size_t>(rank)].wait(stopped ? 0ms : 300s));
  }
  return statuses;
}

Outcome outcome_of(const Folder& out, int rank) {
  const Folder path = out / fmt::format("outcome-{}.json", rank);
  std::ifstream file(path);
  if (!file) throw dds::IoError(fmt::format("rank {} left no {}", rank, path.string()));
  return nlohmann::json::parse(file);
}

torch::Tensor weights_of(const Folder& out, int rank) {
  torch::Tensor weights;
  torch::load(weights, (out / fmt::format("weights-{}.pt", rank)).string());
  return weights;
}

// ---- what they have in common with one process ----

using Key = std::pair<std::int64_t, dds::SeriesId>;

std::map<Key, dds::Signature> signatures_of(const Folder& out) {
  std::map<Key, dds::Signature> result;
  for (dds::Signature& s : dds::log::read_run(out / "log").signatures) {
    Key key{s.step, dds::series_of(s)};
    result.emplace(std::move(key), std::move(s));
  }
  return result;
}

/// Largest |sigma - sigma'| / sigma_max over all readings; infinite where the two logs differ in anything that is
/// counted.
double difference(const Folder& merged, const Folder& single) {
  constexpr double kNotComparable = std::numeric_limits<double>::infinity();
  const auto a = signatures_of(merged), b = signatures_of(single);
  if (a.size() != b.size() || a.empty()) return kNotComparable;
  double largest = 0;
  for (const auto& [key, reference] : b) {
    const auto found = a.find(key);
    if (found == a.end()) return kNotComparable;
    const dds::Signature& s = found->second;
    if (s.rows != reference.rows || s.rank != reference.rank || s.structural_bound != reference.structural_bound ||
        s.status != reference.status || s.reduction != reference.reduction ||
        s.spectrum.size() != reference.spectrum.size() || !reference.sigma_max) {
      return kNotComparable;
    }
    for (std::size_t k = 0; k < s.spectrum.size(); ++k) {
      largest = std::max(largest, std::abs(s.spectrum[k] - reference.spectrum[k]) / *reference.sigma_max);
    }
  }
  return largest;
}

/// Bytes of the factors that one rank sends for one reading of the network: for each layer and side the triangle of its
/// width.
double factor_bytes() {
  double entries = 0;
  for (const double width : {8, 16, 32, 10}) entries += width * (width + 1) / 2;
  return 2 * entries * sizeof(double);
}

/// Trains on each arrangement and once alone, and holds the logs against each other.
void compare(const std::vector<Arrangement>& arrangements, const Job& job, const Setting& setting,
             const RunOptions& options, Progress& progress, Summary& summary) {
  const auto split = fashion_mnist::load(setting.data, "t10k");
  const auto alone = [&](const Job& own, const std::string& name) {
    std::filesystem::create_directories(options.out / name);
    return distributed::train(own, split, std::nullopt, options.out / name);
  };
  alone(job, "one-process");
  progress.update("training", 1.0 / static_cast<double>(arrangements.size() + 1));
  double worst = 0, worst_weights = 0;
  bool agree = true;
  std::size_t done = 1;
  for (const Arrangement& arrangement : arrangements) {
    const Folder out = options.out / arrangement.name;
    const auto statuses = run_ranks(arrangement, job, setting, out);
    for (int rank = 0; rank < arrangement.ranks; ++rank) {
      const auto& status = statuses[static_cast<std::size_t>(rank)];
      if (status != 0) {
        throw dds::Error(fmt::format("{}: rank {} ended with status {}", arrangement.name, rank,
                                     status ? std::to_string(*status) : "none, it still ran"));
      }
    }
    const double differs = difference(out, options.out / "one-process");
    const torch::Tensor weights = weights_of(out, 0), reference = weights_of(options.out / "one-process", 0);
    worst = std::max(worst, differs);
    worst_weights = std::max(worst_weights, ((weights - reference).abs().max() / reference.abs().max()).item<double>());
    for (int rank = 1; rank < arrangement.ranks; ++rank) agree = agree && torch::equal(weights, weights_of(out, rank));
    summary.add(at_most(claim_of("merged_relative_difference." + arrangement.name,
                                 fmt::format("the same over {}", arrangement.name), exactly(differs)),
                        1e-12));

    const Outcome first = outcome_of(out, 0);
    double sent = 0, sends = 0;
    for (int rank = 0; rank < arrangement.ranks; ++rank) {
      const Outcome outcome = outcome_of(out, rank);
      sent += static_cast<double>(outcome.sent);
      sends += static_cast<double>(outcome.sends);
    }
    const double readings = std::ceil(static_cast<double>(job.steps) / static_cast<double>(job.every));
    Claim bytes = claim_of(
        "message_bytes." + arrangement.name,
        fmt::format("bytes that a rank other than the first sends for a reading, in {:.3g} sends; predicted: the "
                    "triangles of 4 layers on 2 sides",
                    sends / readings / (arrangement.ranks - 1)),
        exactly(sent / readings / (arrangement.ranks - 1)));
    bytes.predicted = factor_bytes();
    summary.add(bytes);
    Job share = job;
    share.batch = job.batch / arrangement.ranks;
    const Outcome own = alone(share, arrangement.name + "-share");
    summary.add(
        claim_of("merged_reading_over_single." + arrangement.name,
                 fmt::format("median seconds of a step's reading on rank 0 of {}, {:.3g}, over those of one process "
                             "with as many rows as one rank has, {:.3g}; with more ranks than cores they wait for "
                             "each other's turn",
                             arrangement.ranks, first.reading_seconds, own.reading_seconds),
                 exactly(first.reading_seconds / own.reading_seconds)));
    progress.update("training", static_cast<double>(++done) / static_cast<double>(arrangements.size() + 1));
    progress.say(fmt::format("{}: {} ranks, signatures differ by {:.2g} sigma_max at most, weights by {:.2g}",
                             arrangement.name, arrangement.ranks, differs, worst_weights));
  }
  summary.add(at_most(
      claim_of("merged_relative_difference",
               "largest |sigma - sigma'| / sigma_max between merged readings and those of one process on the same "
               "rows, over steps, checkpoint reads, layers, sides and arrangements, fp64",
               exactly(worst)),
      1e-12));
  summary.add(within(
      claim_of("replicas_agree", "weights of all ranks are equal bit for bit after the last step", exactly(agree)), 1,
      0));
}

// ---- ranks that are lost ----

struct Loss {
  Arrangement arrangement;
  Job job;
};

/// What is wrong with how the others took it; empty: nothing.
std::string trouble(const Loss& loss, const std::vector<std::optional<int>>& statuses, const Setting& setting,
                    const Folder& out) {
  for (int rank = 0; rank < loss.arrangement.ranks; ++rank) {
    const auto& status = statuses[static_cast<std::size_t>(rank)];
    if (rank == loss.job.victim) continue;
    if (status != 0) return fmt::format("rank {} ended with status {}", rank, status.value_or(-1));
    const Outcome outcome = outcome_of(out, rank);
    if (outcome.errors.size() > 1) return fmt::format("rank {} told of {} errors", rank, outcome.errors.size());
    // The wait for the lost one, once.
    constexpr double kTraining = 2;  // seconds that any step may take
    std::vector<double> longest = outcome.step_seconds;
    std::sort(longest.rbegin(), longest.rend());
    if (longest.at(0) > std::chrono::duration<double>(setting.timeout).count() + kTraining)
      return fmt::format("a step of rank {} took {:.3g} s", rank, longest[0]);
    if (longest.at(1) > kTraining) return fmt::format("a second step of rank {} took {:.3g} s", rank, longest[1]);
  }
  // Every reading before the loss, whole, and none after it.
  std::map<std::int64_t, int> rows;
  const dds::log::Run run = dds::log::read_run(out / "log");
  for (const dds::Signature& s : run.signatures) {
    if (!s.rows || *s.rows % loss.job.batch != 0)
      return fmt::format("step {} has a reading of {} rows", s.step, s.rows.value_or(0));
    ++rows[s.step];
  }
  constexpr int kSeries = 8;
  std::map<std::int64_t, int> expected;
  for (std::int64_t step = 0; step < loss.job.fatal_step; step += loss.job.every) expected[step] = kSeries;
  if (rows != expected) return fmt::format("{} readings are in the log, expected {}", rows.size(), expected.size());
  if (loss.job.victim == 0) return "";  // whose log it is
  const Outcome first = outcome_of(out, 0);
  if (first.errors.size() != 1 || first.errors[0].find("those after it are not read") == std::string::npos) {
    return "rank 0 did not tell of it";
  }
  std::ifstream file(out / "log" / "run.json");
  if (!nlohmann::json::parse(file).contains("lost_rank")) return "run.json does not tell of it";
  return "";
}

void lose(const std::vector<Loss>& losses, const Setting& setting, const RunOptions& options, Progress& progress,
          Summary& summary) {
  std::int64_t survived = 0;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const Loss& loss = losses[i];
    const Folder out = options.out / fmt::format("lost-{}", i);
    const auto statuses = run_ranks(loss.arrangement, loss.job, setting, out);
    const std::string wrong = trouble(loss, statuses, setting, out);
    if (wrong.empty()) {
      ++survived;
      std::filesystem::remove_all(out);
    } else {
      progress.say(fmt::format("{}: rank {} of {} {} at step {}: {}", out.filename().string(), loss.job.victim,
                               loss.arrangement.ranks, loss.job.fate == SIGKILL ? "killed" : "stopped",
                               loss.job.fatal_step, wrong));
    }
    progress.update("lost ranks", static_cast<double>(i + 1) / static_cast<double>(losses.size()));
  }
  summary.add(within(
      claim_of(
          "lost_ranks_survived",
          fmt::format(
              "share of {} runs of 2 to 4 ranks, one of which was killed or stopped at a random step, where the "
              "others trained on, waited for it once and no longer than the time-out of {} s, told of it once, and the "
              "log has every reading before it and no part of one after it",
              losses.size(), std::chrono::duration<double>(setting.timeout).count()),
          exactly(static_cast<double>(survived) / static_cast<double>(losses.size()))),
      1, 0));
}

void run(const RunOptions& options, const Folder& data) {
  torch::set_num_threads(1);
  const Job job{.steps = options.full() ? 300 : 60, .seed = options.seed};
  const Setting setting{data, 60s}, impatient{data, 2s};
  std::vector<Arrangement> arrangements{{"file-2", 2, false, false}, {"tcp-4", 4, true, false}};
  if (options.full())
    arrangements.push_back({"file-4", 4, false, false}), arrangements.push_back({"tcp-2", 2, true, false});
  Progress progress({{"training", options.full() ? 4 : 2}, {"lost ranks", options.full() ? 4 : 1}});
  Summary summary(options);
  if (const std::string reason = distributed::Namespaces::missing(); reason.empty()) {
    arrangements.push_back({"namespaces-3", 3, true, true});
  } else {
    progress.say("no network namespaces: " + reason);
  }
  compare(arrangements, job, setting, options, progress, summary);

  std::mt19937_64 random(options.seed);
  std::vector<Loss> losses;
  for (int i = 0; i < (options.full() ? 40 : 6); ++i) {
    Loss loss{{"", 2 + i % 3, false, false}, {.steps = 40, .every = 4, .batch = 96, .probe = 0, .together = false}};
    loss.job.seed = options.seed;
    loss.job.victim = static_cast<int>(random() % static_cast<std::uint64_t>(loss.arrangement.ranks));
    // Before a reading: a loss after the last one is nobody's here.
    const std::int64_t last_reading = (loss.job.steps - 1) / loss.job.every * loss.job.every;
    loss.job.fatal_step = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(last_reading));
    loss.job.fate = i % 2 == 0 ? SIGKILL : SIGSTOP;
    losses.push_back(loss);
  }
  lose(losses, impatient, options, progress, summary);
  summary.write();
}

}  // namespace

int main(int argc, char** argv) {
  if (const char* task = std::getenv(kTask)) {
    return dds::experiments::run_experiment([&] { be_a_rank(nlohmann::json::parse(task)); });
  }
  Folder data = "/usr/share/datasets/fashion-mnist";
  const RunOptions options = dds::experiments::parse_command_line(
      argc, argv, "distributed", "Signatures over several processes against those of one.", &data);
  return dds::experiments::run_experiment([&] { run(options, data); });
}
