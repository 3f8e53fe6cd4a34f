#include "src/tool/streams.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dds/error.hpp>

namespace dds::tool {

void hold_standard_streams() noexcept {
  // In this order: a file gets the lowest number that is free. Opened the wrong way round, each fails at its first use.
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    [[maybe_unused]] const int held = ::open("/dev/null", (stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
  }
}

void flush_output() {
  const bool lost_before = std::ferror(stdout) != 0;
  if (std::fflush(stdout) != 0)
    throw IoError(fmt::format("cannot write to the standard output: {}", std::strerror(errno)));
  if (lost_before) throw IoError("cannot write to the standard output: a part of it is lost");
}

void complain(const std::string& text) noexcept {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace dds::tool
