#include "src/log/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <dds/error.hpp>
#include <mutex>
#include <set>
#include <system_error>

#include "src/base/logger.hpp"

namespace dds::log {
namespace {

constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kLock = ".lock";
constexpr std::size_t kMostWaiting = std::size_t{1} << 24;

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

/// Lets the disk have what was written; returns 0, or the error number: of a full quota, say, which a file system over
/// a network may find out only here.
int sync(int fd) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) return errno == EINVAL ? 0 : errno;  // EINVAL: there is nothing to sync to
  }
  return 0;
}

/// Copies the first `size` bytes; returns 0, or the error number.
int copy(int from, int to, std::uint64_t size) {
  std::array<char, 1 << 16> buffer;
  for (std::uint64_t done = 0; done < size;) {
    const ssize_t count =
        ::pread(from, buffer.data(), std::min<std::uint64_t>(buffer.size(), size - done), static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 ? errno : EIO;
    if (const int error = write_all(to, {buffer.data(), static_cast<std::size_t>(count)})) return error;
    done += static_cast<std::uint64_t>(count);
  }
  return 0;
}

bool is_deleted(const Descriptor& file) {
  struct stat status;
  return ::fstat(file.get(), &status) == 0 && status.st_nlink == 0;
}

/// The descriptors of all locks of this process. A fork gives the child descriptors of the same open files, and with
/// them the locks, which it would hold beyond its parent's death: it closes them, and the parent's stay as they are.
struct OpenLocks {
  std::mutex mutex;  ///< held over a fork too: no descriptor is open that is not among them
  std::set<Descriptor*> files;
};

/// Never destroyed, as a static sink may outlive other statics.
OpenLocks& open_locks() {
  static auto* const one = [] {
    ::pthread_atfork([] { open_locks().mutex.lock(); }, [] { open_locks().mutex.unlock(); },
                     [] {
                       for (Descriptor* file : open_locks().files) *file = Descriptor();
                       open_locks().mutex.unlock();
                     });
    return new OpenLocks;
  }();
  return *one;
}

/// Whether the error number of flock says that there are no locks here.
bool has_no_locks(int error) { return error == ENOSYS || error == ENOLCK || error == EOPNOTSUPP; }

/// Where the content of a file is put together. Named by process, so that two that replace the same file do not write
/// into each other's.
std::filesystem::path temporary_of(const std::filesystem::path& path) {
  return fmt::format("{}{}{}", path.string(), kTemporary, ::getpid());
}

/// Puts the temporary file in the place of the file, or removes it if something went wrong.
void move_into_place(const std::filesystem::path& temporary, const std::filesystem::path& path, int error) {
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return;
  ::unlink(temporary.c_str());
  fail("write", path, error);
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void Lock::Close::operator()(Descriptor* file) const {
  const std::lock_guard guard(open_locks().mutex);
  open_locks().files.erase(file);
  delete file;
}

Lock::Lock(const std::filesystem::path& directory, WhenHeld when_held) : file_(new Descriptor) {
  {
    const std::lock_guard guard(open_locks().mutex);
    open_locks().files.insert(file_.get());
    *file_ = open_file("write", directory / kLock, O_RDWR | O_CREAT);
  }
  int status = 0;
  do {
    status = ::flock(file_->get(), when_held == WhenHeld::Wait ? LOCK_EX : LOCK_EX | LOCK_NB);
  } while (status != 0 && errno == EINTR);
  if (status == 0) return;
  if (has_no_locks(errno)) {
    tell(Level::Warning, fmt::format("cannot lock {}: {}; nothing keeps a second run from writing into it",
                                     directory.string(), std::generic_category().message(errno)));
    return;
  }
  if (errno != EWOULDBLOCK) fail("lock", directory, errno);
  throw IoError(fmt::format("{} is being written by another run: wait for it to end, or choose another directory",
                            directory.string()));
}

bool Lock::held() const { return file_->get() >= 0 && !is_deleted(*file_); }

AppendFile::AppendFile(std::filesystem::path path, std::uint64_t size)
    : path_(std::move(path)), file_(open_file("write", path_, O_RDWR | O_APPEND | O_CREAT)), size_(size) {
  cut();
}

AppendFile::~AppendFile() {
  if (waiting_.empty()) return;
  try {
    // A deleted file is not put back here: what has its name by now may be another's.
    if (is_deleted(file_)) fail("write to", path_, ENOENT);
    write();
  } catch (const std::exception& error) {
    tell(Level::Error, fmt::format("{}; {} rows are lost", error.what(), waiting_.size()));
  }
}

bool AppendFile::has_room(std::size_t bytes) const {
  return waiting_.empty() || bytes_waiting_ + bytes <= kMostWaiting;
}

void AppendFile::add(std::string row) {
  if (!has_room(row.size())) return;
  bytes_waiting_ += row.size();
  waiting_.push_back(std::move(row));
}

void AppendFile::append(std::string row) {
  if (!has_room(row.size())) write();
  add(std::move(row));
  write();
}

void AppendFile::write() {
  if (is_deleted(file_)) put_back();
  if (torn_) cut();
  const std::size_t late = waiting_.size();
  while (!waiting_.empty()) {
    const std::string& row = waiting_.front();
    if (const int error = write_all(file_.get(), row)) {
      torn_ = true;
      cut();
      fail("write to", path_, error);
    }
    size_ += row.size();
    bytes_waiting_ -= row.size();
    waiting_.pop_front();
  }
  if (late > 1) tell(Level::Info, fmt::format("{}: {} rows that had to wait are written", path_.string(), late - 1));
}

void AppendFile::cut() {
  if (::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) fail("cut", path_, errno);
  torn_ = false;
}

void AppendFile::put_back() {
  const std::filesystem::path temporary = temporary_of(path_);
  Descriptor anew = open_file("write", temporary, O_RDWR | O_APPEND | O_CREAT | O_TRUNC);
  int error = copy(file_.get(), anew.get(), size_);
  if (error == 0) error = sync(anew.get());
  move_into_place(temporary, path_, error);
  file_ = std::move(anew);
  torn_ = false;
  tell(Level::Warning, fmt::format("{} was deleted while it was written, and is put back", path_.string()));
}

bool AppendFile::in_place() const {
  struct stat named, open;
  return ::stat(path_.c_str(), &named) == 0 && ::fstat(file_.get(), &open) == 0 && named.st_dev == open.st_dev &&
         named.st_ino == open.st_ino;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  const bool there = std::filesystem::exists(path, error);
  if (error) fail("look at", path, error.value());
  return there;
}

const std::filesystem::path& make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("make", path, error.value());
  return path;
}

std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> entries;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
    entries.push_back(entry->path());
  if (error) fail("read", directory, error.value());
  return entries;
}

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file = open_file("read", path, O_RDONLY | O_NONBLOCK);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) fail("read", path, errno);
  // A pipe would be waited for, and /dev/zero has no end.
  if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("cannot read {}: it is no regular file", path.string()));
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
  const std::filesystem::path temporary = temporary_of(path);
  int error = 0;
  {
    const Descriptor file = open_file("write", temporary, O_WRONLY | O_CREAT | O_TRUNC);
    error = write_all(file.get(), content);
    if (error == 0) error = sync(file.get());
  }
  move_into_place(temporary, path, error);
}

bool is_left_over(const std::filesystem::path& path) {
  return path.filename().string().find(kTemporary) != std::string::npos;
}

std::string first_entry(const std::filesystem::path& directory) {
  for (const std::filesystem::path& entry : entries_of(directory)) {
    if (entry.filename() != kLock && !is_left_over(entry)) return entry.filename().string();
  }
  return "";
}

void remove_left_overs(const std::filesystem::path& directory, std::initializer_list<std::string_view> files) {
  for (const std::filesystem::path& entry : entries_of(directory)) {
    const std::string name = entry.filename().string();
    const bool left_over = std::any_of(files.begin(), files.end(), [&](std::string_view file) {
      return name.starts_with(std::string(file) + std::string(kTemporary));
    });
    std::error_code error;  // what cannot be removed stays
    if (left_over) std::filesystem::remove(entry, error);
  }
}

}  // namespace dds::log
