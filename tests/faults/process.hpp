// Work in a process of its own, which may be killed.
//
// The process is forked rather than started: a killed training costs milliseconds, and hundreds can be had. So the
// test's own process must not run LibTorch's operators, whose threads a fork would not take along.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>
#include <thread>

namespace dds::test {

/// How many times a test kills: the environment variable DDS_KILLS, or `otherwise`.
inline int kills(int otherwise) {
  const char* text = std::getenv("DDS_KILLS");
  return text ? std::atoi(text) : otherwise;
}

/// A process that runs `work`, and says why where that throws.
template <class Work>
pid_t start(const Work& work) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    work();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "in a process of its own: %s\n", error.what());
    std::_Exit(1);
  }
  std::_Exit(0);
}

/// Waits for it; true if it was killed. Ends the test's hopes if it failed by itself.
inline bool was_killed(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the process ended with status " << status;
  return false;
}

/// Runs `work` and kills it when `wait` returns; true if it had not ended by then.
template <class Work, class Wait>
bool killed(const Work& work, const Wait& wait) {
  const pid_t child = start(work);
  wait();
  ::kill(child, SIGKILL);
  return was_killed(child);
}

/// A pause of a random length, up to so long.
template <class Random>
void pause(Random& random, std::chrono::microseconds longest) {
  std::this_thread::sleep_for(
      std::chrono::microseconds(std::uniform_int_distribution<std::int64_t>(0, longest.count())(random)));
}

/// Runs `work` in a process of its own and gives what it returns, a text.
template <class Work>
std::string result_of(const Work& work) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = start([&] {
    const std::string text = work();
    if (::write(ends[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::_Exit(1);
  });
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(count));
  ::close(ends[0]);
  EXPECT_FALSE(was_killed(child));
  return text;
}

}  // namespace dds::test
