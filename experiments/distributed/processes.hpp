// Processes of this very program, on this network or on networks of their own.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace distributed {

/// A running command; killed if it still runs when this goes.
class Process {
 public:
  /// `environment`: NAME=VALUE beside what this process has. Throws dds::IoError if it cannot be started.
  Process(const std::vector<std::string>& command, const std::vector<std::string>& environment);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();

  void signal(int number) const;
  /// As a shell has it: 128 + N where signal N ended it. Empty: it runs after `limit`.
  std::optional<int> wait(std::chrono::milliseconds limit);

 private:
  pid_t pid_;
};

/// Network namespaces, one for each of `count` ranks, joined by a bridge, under names of this process's own. They go
/// with the object. Needs root and iproute2.
class Namespaces {
 public:
  /// Why there can be none, or empty.
  static std::string missing();
  /// Throws dds::IoError naming the command that failed.
  explicit Namespaces(int count);
  ~Namespaces();
  Namespaces(const Namespaces&) = delete;
  Namespaces& operator=(const Namespaces&) = delete;

  /// What a command is to be preceded by to run in that of `rank`, and its address there.
  std::vector<std::string> enter(int rank) const;
  std::string address(int rank) const;

 private:
  void remove() const;
  std::string name(int rank) const;
  int made_ = 0;
  std::string prefix_;
};

/// A port of this machine that nobody listens at.
int free_port();

}  // namespace distributed
