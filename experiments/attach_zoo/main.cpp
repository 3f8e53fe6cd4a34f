// Does `dds attach` miss anything without a word? Programs of every kind of training, in C++ and where there is a
// PyTorch in Python (DDS_ZOO_PYTHON, the interpreter), run bare and attached to. Each knows how many steps it has and
// what its layers are called.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <dds/run.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "experiments/harness/harness.hpp"
#include "src/log/file.hpp"

namespace {

namespace ex = dds::experiments;
namespace fs = std::filesystem;

struct Result {
  int status = 0;
  std::string out, error;
  double seconds = 0;  ///< of processor time
};

Result run(const fs::path& folder, const std::string& command) {
  const auto used = [] {
    rusage usage = {};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  };
  const double before = used();
  const int status = std::system(
      fmt::format("cd '{}' && exec env OMP_NUM_THREADS=1 {} >stdout 2>stderr", folder.string(), command).c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, dds::log::read_file(folder / "stdout"),
          dds::log::read_file(folder / "stderr"), used() - before};
}

struct Outcome {
  std::string program;
  std::int64_t every = 0, steps = 0, counted = 0, layers = 0, named = 0;
  bool identical = false, complete = false, told = false;
};

/// Runs one program bare and attached to.
Outcome try_program(const fs::path& out, const std::string& name, const std::string& command, int every) {
  const fs::path folder = out / fmt::format("{}.{}", name, every);
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string whole = command + " truth";
  const Result bare = run(folder, whole);
  const Result attached =
      run(folder, fmt::format("'{}' attach --quiet --every {} --out run -- {}", DDS_TOOL, every, whole));
  Outcome outcome{name, every};
  outcome.identical = bare.status == attached.status && bare.out == attached.out && bare.error == attached.error;
  const auto truth = nlohmann::json::parse(dds::log::read_file(folder / "truth"));
  outcome.steps = truth["steps"];
  const auto layers = truth["layers"].get<std::set<std::string>>();
  outcome.layers = std::ssize(layers);
  if (!fs::exists(folder / "run")) return outcome;
  const dds::log::Run log = dds::log::read_run(folder / "run");
  const auto account = nlohmann::json::parse(log.description.at("attach"));
  outcome.counted = account["steps"];
  std::set<std::string> read;
  for (const dds::Signature& s : log.signatures) {
    if (s.sigma_max) read.insert(s.layer);
  }
  outcome.named =
      std::count_if(layers.begin(), layers.end(), [&](const std::string& layer) { return read.contains(layer); });
  outcome.told = !account["notes"].empty();
  outcome.complete = outcome.counted == outcome.steps && outcome.named == outcome.layers &&
                     account["steps_read"] >= account["steps_due"];
  return outcome;
}

std::vector<std::string> kinds_of(const fs::path& out, const std::string& program) {
  std::istringstream lines(run(out, program).out);
  std::vector<std::string> kinds;
  for (std::string kind; std::getline(lines, kind);) kinds.push_back(kind);
  return kinds;
}

/// Processor time of a program that ends at once, attached over bare.
double start_seconds(const fs::path& out, int pairs) {
  const std::string program = fmt::format("'{}'", DDS_ZOO);
  std::vector<double> more;
  for (int i = 0; i < pairs; ++i) {
    const double bare = run(out, program).seconds;
    more.push_back(run(out, fmt::format("'{}' attach --quiet --out none -- {}", DDS_TOOL, program)).seconds - bare);
  }
  std::sort(more.begin(), more.end());
  return more[more.size() / 2];
}

void experiment(const ex::RunOptions& options) {
  std::vector<std::pair<std::string, std::string>> programs;
  const std::string in_cpp = fmt::format("'{}'", DDS_ZOO);
  for (const std::string& kind : kinds_of(options.out, in_cpp)) programs.emplace_back(kind, in_cpp + " " + kind);
  if (const char* python = std::getenv("DDS_ZOO_PYTHON"); python && *python) {
    const std::string in_python = fmt::format("'{}' '{}'", python, DDS_ZOO_SCRIPT);
    for (const std::string& kind : kinds_of(options.out, in_python))
      programs.emplace_back("python_" + kind, in_python + " " + kind);
  }
  const std::vector<int> rates = options.full() ? std::vector<int>{1, 7, 10, 25, 100} : std::vector<int>{7};
  ex::Progress progress({{"programs", 1}});
  std::ofstream table(options.out / "programs.csv");
  table << "program,every,steps,counted,layers,named,identical,told\n";
  std::int64_t runs = 0, identical = 0, right = 0, layers = 0, named = 0, silent = 0;
  for (const auto& [name, command] : programs) {
    for (const int every : rates) {
      const Outcome o = try_program(options.out, name, command, every);
      ++runs;
      identical += o.identical ? 1 : 0;
      right += o.counted == o.steps ? 1 : 0;
      layers += o.layers;
      named += o.named;
      silent += o.complete || o.told ? 0 : 1;
      table << fmt::format("{},{},{},{},{},{},{},{}\n", o.program, o.every, o.steps, o.counted, o.layers, o.named,
                           o.identical ? 1 : 0, o.told ? 1 : 0);
      progress.update("programs", static_cast<double>(runs) / static_cast<double>(programs.size() * rates.size()));
    }
  }
  ex::Summary summary(options);
  const auto share = [](std::int64_t part, std::int64_t of) {
    return ex::exactly(static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(of, 1)));
  };
  const auto at_least = [](ex::Claim claim, double goal) {
    claim.goal_low = goal;
    return claim;
  };
  summary.add(at_least(
      ex::claim_of("identical", "runs whose output and exit code are the bare program's", share(identical, runs)), 1));
  summary.add(at_least(ex::claim_of("steps_right", "runs of which every step is counted", share(right, runs)), 1));
  summary.add(at_least(
      ex::claim_of("layers_named", "layers that are read under their names in named_modules()", share(named, layers)),
      0.99));
  summary.add(ex::at_most(ex::claim_of("silent_losses", "runs that read less than was due without saying so",
                                       ex::exactly(static_cast<double>(silent))),
                          0));
  summary.add(
      ex::at_most(ex::claim_of("start_seconds", "processor time that attaching adds to a program that ends at once",
                               ex::exactly(start_seconds(options.out, options.full() ? 41 : 11))),
                  0.03));
  summary.write();
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options = ex::parse_command_line(
      argc, argv, "attach_zoo", "Programs of every kind of training, as they are and with dds attach.");
  return ex::run_experiment([&] { experiment(options); });
}
