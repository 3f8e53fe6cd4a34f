#include "src/log/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <dds/error.hpp>
#include <system_error>

namespace dds::log {
namespace {

constexpr std::string_view kTemporary = ".tmp-";

[[noreturn]] void fail(std::string_view what, const std::filesystem::path& path, int error) {
  throw IoError(fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(error)));
}

Descriptor open_file(std::string_view what, const std::filesystem::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (file.get() < 0) fail(what, path, errno);
  return file;
}

/// Writes everything; returns 0, or the error number. A short write is carried on with, so that the system says why.
int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Lock::Lock(const std::filesystem::path& directory) : file_(open_file("write", directory / ".lock", O_RDWR | O_CREAT)) {
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) fail("lock", directory, errno);
  throw IoError(fmt::format("{} is being written by another run: wait for it to end, or choose another directory",
                            directory.string()));
}

AppendFile::AppendFile(std::filesystem::path path, std::uint64_t size)
    : path_(std::move(path)), file_(open_file("write", path_, O_WRONLY | O_APPEND | O_CREAT)) {
  truncate(size);
}

void AppendFile::append(std::string_view row) {
  if (const int error = write_all(file_.get(), row)) {
    truncate(size_);
    fail("write to", path_, error);
  }
  size_ += row.size();
}

void AppendFile::truncate(std::uint64_t size) {
  if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) fail("cut", path_, errno);
  size_ = size;
}

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file = open_file("read", path, O_RDONLY);
  std::string content;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("read", path, errno);
    if (count == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

void replace_file(const std::filesystem::path& path, std::string_view content) {
  // Named by process, so that two that replace the same file do not write into each other's.
  const std::filesystem::path temporary = fmt::format("{}{}{}", path.string(), kTemporary, ::getpid());
  int error = 0;
  {
    const Descriptor file = open_file("write", temporary, O_WRONLY | O_CREAT | O_TRUNC);
    error = write_all(file.get(), content);
  }
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return;
  ::unlink(temporary.c_str());
  fail("write", path, error);
}

bool is_left_over(const std::filesystem::path& path) {
  return path.filename().string().find(kTemporary) != std::string::npos;
}

}  // namespace dds::log
