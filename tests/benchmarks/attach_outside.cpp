// What `dds attach` costs: wall time of a whole command, started bare and with the plugin, no step due but the first,
// one in a hundred, each; and what keeping snapshots adds.
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include "tests/benchmarks/timing.hpp"

namespace {

using dds::benchmarks::compare;
using dds::benchmarks::Results;
namespace fs = std::filesystem;

constexpr int kPairs = 20;

/// Runs the training of so many steps; `settings` empty: bare.
void run(int steps, std::string settings) {
  std::vector<std::string> environment;
  for (char** variable = environ; *variable; ++variable) environment.emplace_back(*variable);
  if (!settings.empty()) {
    environment.emplace_back("LD_PRELOAD=" DDS_PRELOAD);
    environment.emplace_back("DDS_ATTACH=" + std::move(settings));
  }
  std::string program = DDS_TRAIN, count = std::to_string(steps);
  std::vector<char*> words{program.data(), count.data(), nullptr}, variables;
  for (std::string& variable : environment) variables.push_back(variable.data());
  variables.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = posix_spawn(&child, program.c_str(), &files, nullptr, words.data(), variables.data());
  posix_spawn_file_actions_destroy(&files);
  int status = 0;
  if (error != 0 || waitpid(child, &status, 0) < 0 || status != 0) throw std::runtime_error(program + " did not run");
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = dds::experiments::parse_command_line(argc, argv, "attach_outside",
                                                            "What `dds attach` costs a command, on one thread.");
  return dds::experiments::run_experiment([&] {
    Results results(options);
    const int steps = options.full() ? 20000 : 5000;
    const fs::path log = fs::path(options.out) / "run";
    const auto bare_for = [](int count) { return [count] { run(count, ""); }; };
    const auto bare = bare_for(steps);
    const auto attached = [&](int every, int count, const char* more = "") {
      return [&log, every, count, more] {
        fs::remove_all(log);
        run(count, fmt::format("out={}:every={}:stop_after={}{}", log.string(), every, count, more));
      };
    };
    results.add("bare_over_bare", "a bare command against a bare command", compare(bare, bare, kPairs), std::nullopt);
    results.add(
        "starting", "attached to a single step, against bare: what loading the plugin takes",
        compare([&] { run(1, ""); }, [&] { run(1, fmt::format("out={}", log.string())), fs::remove_all(log); }, kPairs),
        std::nullopt);
    results.add("no_step_due", "attached with no step due but the first, against bare",
                compare(bare, attached(1 << 30, steps), kPairs), 1.01);
    results.add("each_100_steps", "attached with one step in a hundred read, against bare",
                compare(bare, attached(100, steps), kPairs), std::nullopt);
    results.add("snapshots_each_100_steps", "the same with snapshots, against without",
                compare(attached(100, steps), attached(100, steps, ":snapshots=1"), kPairs), std::nullopt);
    const int fewer = steps / 10;  // a reading takes as long as many of these steps
    results.add("each_step", "attached with each step read, against bare, a tenth of the steps",
                compare(bare_for(fewer), attached(1, fewer), kPairs), std::nullopt);
    fs::remove_all(log);
    results.write();
  });
}
