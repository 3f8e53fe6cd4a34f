// The lock of a folder: who has it after a fork and after a kill, and where there are no locks.
#include "src/log/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include <cerrno>
#include <dds/logger.hpp>
#include <optional>

#include "tests/faults/process.hpp"
#include "tests/log/fixture.hpp"

namespace {

int flock_error = 0;  ///< what flock fails with; 0: it does not

}  // namespace

/// In the place of the C library's.
extern "C" int flock(int file, int operation) noexcept {
  if (flock_error == 0) return static_cast<int>(::syscall(SYS_flock, file, operation));
  errno = flock_error;
  return -1;
}

namespace dds {
namespace {

using log::Lock;
using test::message_of;

class LockTest : public test::LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    std::filesystem::create_directories(path());
  }
};

TEST_F(LockTest, IsFreeAfterAKillThoughAForkedChildLivesOn) {
  int said[2], ended[2];
  ASSERT_EQ(::pipe(said), 0);
  ASSERT_EQ(::pipe(ended), 0);
  const pid_t parent = test::start([&] {
    const int number = ::dup(0);
    ::close(number);
    auto lock = std::make_optional<Lock>(path());
    if (::fork() != 0) ::raise(SIGKILL);
    // What the lock had in the child is the number of something else by now, which its end leaves open.
    const int other = ::open("/dev/null", O_RDONLY);
    ::close(ended[1]);
    const bool held = lock->held();
    lock.reset();
    char byte = !held && other == number && ::fcntl(other, F_GETFD) >= 0 ? 'y' : 'n';
    if (::write(said[1], &byte, 1) != 1 || ::read(ended[0], &byte, 1) != 0) std::_Exit(1);
  });
  ::close(said[1]);
  EXPECT_TRUE(test::was_killed(parent));
  char byte = 0;
  EXPECT_EQ(::read(said[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_NO_THROW(Lock{path()}) << "while the child lives";
  for (const int end : {said[0], ended[0], ended[1]}) ::close(end);
}

TEST_F(LockTest, StaysWithTheParentWhenAForkedChildEnds) {
  const Lock lock(path());
  EXPECT_FALSE(test::was_killed(test::start([] {})));
  EXPECT_TRUE(lock.held());
  EXPECT_NE(message_of<IoError>([&] { Lock{path()}; }).find("another run"), std::string::npos);
}

class NoLocks : public LockTest {
 protected:
  void SetUp() override {
    LockTest::SetUp();
    set_logger([this](Level level, std::string_view message) {
      heard_ += std::string(to_string(level)) + ": " + std::string(message) + "\n";
    });
  }
  void TearDown() override {
    flock_error = 0;
    set_logger(nullptr);
    LockTest::TearDown();
  }
  std::string heard_;
};

TEST_F(NoLocks, ARunGoesOnWithOneWarning) {
  for (const int error : {ENOSYS, ENOLCK, EOPNOTSUPP}) {
    heard_.clear();
    flock_error = error;
    const auto sink = log::directory(path(std::to_string(error)));
    for (int step = 0; step < 3; ++step) sink->write(Metric{step, "loss", 0.5});
    EXPECT_TRUE(heard_.starts_with("warning: cannot lock " + path(std::to_string(error)).string())) << heard_;
    EXPECT_EQ(std::count(heard_.begin(), heard_.end(), '\n'), 1) << heard_;
  }
}

TEST_F(NoLocks, OtherFailuresAreErrors) {
  flock_error = EINVAL;
  EXPECT_NE(message_of<IoError>([&] { Lock{path()}; }).find("Invalid argument"), std::string::npos);
  EXPECT_EQ(heard_, "");
}

}  // namespace
}  // namespace dds
