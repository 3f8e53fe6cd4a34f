// Files that survive a crash: appended to row by row, or replaced whole. Every failure is an IoError that names the
// path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
/// process, however that ends, whatever children it forked: they do not have it. If another holds it, throws IoError or
/// waits. Where the file system has no locks there is a warning, and nothing keeps a second writer off.
class Lock {
 public:
  enum class WhenHeld { Throw, Wait };
  explicit Lock(const std::filesystem::path& directory, WhenHeld when_held = WhenHeld::Throw);
  /// False if another can take the lock: the file was deleted meanwhile, or this is a forked child.
  bool held() const;

 private:
  struct Close {
    void operator()(Descriptor* file) const;
  };
  std::unique_ptr<Descriptor, Close> file_;
};

/// A file that grows by whole rows. What cannot be written waits until it can, and a file that is deleted under its
/// writer is put back with its rows, which the open descriptor still holds.
class AppendFile {
 public:
  AppendFile() = default;
  /// Opens the file, makes it if it is not there, and cuts it to its first `size` bytes.
  AppendFile(std::filesystem::path path, std::uint64_t size);
  AppendFile(AppendFile&&) = default;
  AppendFile& operator=(AppendFile&&) = default;
  /// Tries to write what waits for the last time.
  ~AppendFile();

  /// True if a row of so many bytes may wait: one always may, and several take at most 16 MiB.
  bool has_room(std::size_t bytes) const;
  /// Lets a row wait; one without room is dropped.
  void add(std::string row);
  /// Writes the rows that wait, each in one write. If that fails, what was written of a row is taken back before
  /// IoError is thrown: the next one never follows half of it.
  void write();
  /// Both; where there is no room, what waits is written before.
  void append(std::string row);
  std::uint64_t size() const { return size_; }
  /// True if the file is what its path names.
  bool in_place() const;

 private:
  void cut();
  void put_back();

  std::filesystem::path path_;
  Descriptor file_;
  std::uint64_t size_ = 0;  ///< of the whole rows in the file
  bool torn_ = false;       ///< part of a row may stand behind them
  std::deque<std::string> waiting_;
  std::size_t bytes_waiting_ = 0;
};

/// Like the rest of this file they throw IoError, where std::filesystem has an exception of its own.
bool is_there(const std::filesystem::path& path);
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory);
/// Makes the folder and those that it lies in, as far as they are missing, and returns it.
const std::filesystem::path& make_folder(const std::filesystem::path& path);

std::string read_file(const std::filesystem::path& path);

/// Puts `content` in the place of the file: a reader sees the old one or the new one, never a part, nor does anybody
/// after a power cut.
void replace_file(const std::filesystem::path& path, std::string_view content);

/// Whether it is something that a crash within `replace_file` can leave behind.
bool is_left_over(const std::filesystem::path& path);

/// The name of something in the directory, but for the lock and leavings of a crash; empty if there is nothing.
std::string first_entry(const std::filesystem::path& directory);

/// Removes what crashes left behind of files that nobody but the caller replaces.
void remove_left_overs(const std::filesystem::path& directory, std::initializer_list<std::string_view> files);

}  // namespace dds::log
