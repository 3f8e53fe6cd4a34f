#include "experiments/distributed/processes.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <dds/error.hpp>
#include <thread>
#include <utility>

namespace distributed {
namespace {

using namespace std::chrono_literals;

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// Exit status of a command that prints nothing.
int run_quietly(std::vector<std::string> command) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_WRONLY, 0);
  }
  pid_t pid = 0;
  const int failed = posix_spawnp(&pid, command[0].c_str(), &actions, nullptr, pointers(command).data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  return failed != 0 || waitpid(pid, &status, 0) < 0 ? 127 : status;
}

}  // namespace

Process::Process(const std::vector<std::string>& command, const std::vector<std::string>& environment) {
  std::vector<std::string> arguments = command, variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  const int failed = posix_spawnp(&pid_, arguments[0].c_str(), nullptr, nullptr, pointers(arguments).data(),
                                  pointers(variables).data());
  if (failed != 0) throw dds::IoError(fmt::format("cannot start {}: {}", command[0], std::strerror(failed)));
}

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}

Process::~Process() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const {
  if (pid_ != 0) kill(pid_, number);
}

std::optional<int> Process::wait(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (true) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = 0;
      return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (std::chrono::steady_clock::now() >= end) return std::nullopt;
    std::this_thread::sleep_for(5ms);
  }
}

std::string Namespaces::missing() {
  if (geteuid() != 0) return "they need root";
  const std::string probe = fmt::format("dds{}-probe", getpid());
  if (run_quietly({"ip", "netns", "add", probe}) != 0) return "`ip netns add` fails";
  run_quietly({"ip", "netns", "delete", probe});
  return "";
}

Namespaces::Namespaces(int count) : prefix_(fmt::format("dds{}", getpid())) {
  const auto run = [](const std::vector<std::string>& command) {
    if (run_quietly(command) != 0) throw dds::IoError(fmt::format("this command failed: {}", fmt::join(command, " ")));
  };
  try {
    run({"ip", "link", "add", prefix_, "type", "bridge"});
    run({"ip", "link", "set", prefix_, "up"});
    for (int rank = 0; rank < count; ++rank) {
      run({"ip", "netns", "add", name(rank)});
      ++made_;
      run({"ip", "link", "add", name(rank), "type", "veth", "peer", "name", "eth0", "netns", name(rank)});
      run({"ip", "link", "set", name(rank), "master", prefix_, "up"});
      run({"ip", "-n", name(rank), "address", "add", address(rank) + "/24", "dev", "eth0"});
      for (const char* device : {"eth0", "lo"}) run({"ip", "-n", name(rank), "link", "set", device, "up"});
    }
  } catch (...) {
    remove();
    throw;
  }
}

Namespaces::~Namespaces() { remove(); }

void Namespaces::remove() const {
  for (int rank = 0; rank < made_; ++rank) run_quietly({"ip", "netns", "delete", name(rank)});
  run_quietly({"ip", "link", "delete", prefix_});
}

std::string Namespaces::name(int rank) const { return fmt::format("{}-{}", prefix_, rank); }
std::vector<std::string> Namespaces::enter(int rank) const { return {"ip", "netns", "exec", name(rank)}; }
std::string Namespaces::address(int rank) const { return fmt::format("10.221.77.{}", rank + 1); }

int free_port() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = listener >= 0 && bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int problem = errno;
  if (listener >= 0) close(listener);
  if (!bound) throw dds::IoError(fmt::format("no port to listen at: {}", std::strerror(problem)));
  return ntohs(address.sin_port);
}

}  // namespace distributed
