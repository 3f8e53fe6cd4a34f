#include "tests/benchmarks/peer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <torch/version.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dds/error.hpp>
#include <fstream>
#include <iterator>

namespace dds::benchmarks {
namespace {

constexpr const char* kLauncher = "DDS_PEERS";  // set by tests/benchmarks/run: tests/benchmarks/peers/launch

std::string last_words(const std::filesystem::path& log) {
  std::ifstream file(log);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return text.size() <= 600 ? text : "..." + text.substr(text.size() - 600);
}

}  // namespace

bool Peer::wanted() { return std::getenv(kLauncher) != nullptr; }

Peer::Peer(const experiments::RunOptions& options, const std::string& name)
    : name_(options.experiment + "/" + name), log_(options.out / (name + ".log")) {
  const char* launcher = std::getenv(kLauncher);
  if (!launcher) throw Error(fmt::format("peer {}: start the benchmark with ./tests/benchmarks/run --peers", name_));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw Error(fmt::format("peer {}: no socket: {}", name_, std::strerror(errno)));
  }
  process_.socket = ends[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  std::string program = launcher;
  std::array<char*, 3> arguments{program.data(), name_.data(), nullptr};
  const int failure = posix_spawn(&process_.id, launcher, &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failure != 0) {
    process_.id = -1;
    throw Error(fmt::format("peer {}: {} does not start: {}", name_, launcher, std::strerror(failure)));
  }
  const auto version = answer().at("torch").get<std::string>();
  if (version.substr(0, version.find('+')) != TORCH_VERSION) {
    throw Error(fmt::format("peer {}: it runs on PyTorch {} and this benchmark on LibTorch {}; expected the same",
                            name_, version, TORCH_VERSION));
  }
}

Peer::Process::~Process() {
  if (socket >= 0) close(socket);  // ends the script's loop
  if (id > 0) waitpid(id, nullptr, 0);
}

nlohmann::json Peer::ask(const std::vector<nlohmann::json>& question) {
  const std::string line = nlohmann::json(question).dump() + '\n';
  // Shorter than the socket's buffer; where the script has ended, `answer` says so.
  send(process_.socket, line.data(), line.size(), MSG_NOSIGNAL);
  return answer();
}

nlohmann::json Peer::answer() {
  std::size_t end = 0;
  while ((end = received_.find('\n')) == std::string::npos) {
    std::array<char, 4096> buffer;
    const ssize_t n = recv(process_.socket, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw Error(fmt::format("peer {} ended; its last words ({}):\n{}", name_, log_.string(), last_words(log_)));
    received_.append(buffer.data(), static_cast<std::size_t>(n));
  }
  const std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  return nlohmann::json::parse(line);
}

}  // namespace dds::benchmarks
