// Files that survive a crash: appended to row by row, or replaced whole. Every failure is an IoError that names the
// path and the system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace dds::log {

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

/// Takes the lock of a directory, the file `.lock` in it, for as long as it lives. The kernel drops it with the
/// process, however that ends. Throws IoError if another holds it.
class Lock {
 public:
  explicit Lock(const std::filesystem::path& directory);

 private:
  Descriptor file_;
};

/// A file that grows by whole rows.
class AppendFile {
 public:
  AppendFile() = default;
  /// Opens the file, makes it if it is not there, and cuts it to its first `size` bytes.
  AppendFile(std::filesystem::path path, std::uint64_t size);

  /// Adds a row in one write. If that fails, what was written of it is taken back before IoError is thrown: the next
  /// row never follows half of one.
  void append(std::string_view row);
  /// Takes rows back.
  void truncate(std::uint64_t size);
  std::uint64_t size() const { return size_; }

 private:
  std::filesystem::path path_;
  Descriptor file_;
  std::uint64_t size_ = 0;  ///< of the whole rows
};

std::string read_file(const std::filesystem::path& path);

/// Puts `content` in the place of the file: a reader sees the old one or the new one, never a part.
void replace_file(const std::filesystem::path& path, std::string_view content);

/// Whether it is something that a crash within `replace_file` can leave behind.
bool is_left_over(const std::filesystem::path& path);

}  // namespace dds::log
