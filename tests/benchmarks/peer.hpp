// Libraries in Python that a benchmark measures itself against: scripts in tests/benchmarks/peers, each in a process
// that lives as long as the benchmark and does a piece of work when it is asked to. So both sides run in turn on one
// machine, and `compare` (timing.hpp) takes a peer's work as it takes any other.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/harness/harness.hpp"

namespace dds::benchmarks {

class Peer {
 public:
  /// Whether this run was asked for peers: ./tests/benchmarks/run --peers.
  static bool wanted();

  /// Starts tests/benchmarks/peers/BENCHMARK/`name`.py; what it writes to stderr goes to `name`.log among the results.
  /// Throws Error where it cannot be started, and where its PyTorch is of another version than this LibTorch: the ratio
  /// would then be one of LibTorch's releases.
  Peer(const experiments::RunOptions& options, const std::string& name);

  /// What the script answers to [COMMAND, ARGUMENT...]; asking takes about 50 us. Throws Error, with the script's last
  /// words, where it has ended.
  nlohmann::json ask(const std::vector<nlohmann::json>& question);

 private:
  struct Process {
    Process() = default;
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process();
    pid_t id = -1;
    int socket = -1;
  };
  nlohmann::json answer();

  std::string name_;
  std::filesystem::path log_;
  Process process_;
  std::string received_;  // of the next line
};

}  // namespace dds::benchmarks
