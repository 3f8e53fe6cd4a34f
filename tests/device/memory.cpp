#include "tests/device/memory.hpp"

#include <execinfo.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace dds::test::strict {
namespace {

constexpr std::size_t kRange = std::size_t{1} << 40;
constexpr std::size_t kPage = 4096;
char* range = nullptr;  // of all blocks

/// Async-signal-safe but for backtrace, which is loaded beforehand.
void on_fault(int signal, siginfo_t* info, void*) {
  const char* const address = static_cast<const char*>(info->si_addr);
  if (address < range || address >= range + kRange) {
    std::signal(signal, SIG_DFL);  // not ours: fault again, and end as ever
    return;
  }
  constexpr char kMessage[] = "strict device: the host touched the device's memory, here:\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  std::array<void*, 32> frames{};
  backtrace_symbols_fd(frames.data(), backtrace(frames.data(), frames.size()), STDERR_FILENO);
  _exit(86);
}

}  // namespace

Memory::Memory() {
  void* const pages = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::runtime_error("strict device: no address space");
  range = next_ = static_cast<char*>(pages);
  std::array<void*, 1> frame{};
  backtrace(frame.data(), 1);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
}

void* Memory::allocate(std::size_t bytes, StreamKey home) {
  const std::lock_guard lock(mutex_);
  const std::size_t size = (bytes + kPage - 1) / kPage * kPage;
  char* const begin = std::exchange(next_, next_ + size + kPage);  // a page between them: overruns fault
  if (next_ > range + kRange) throw std::bad_alloc();
  Block& block = blocks_[begin];
  block.begin = begin;
  block.size = size;
  block.history.home = home;
  return begin;
}

History Memory::free(void* begin) {
  const std::lock_guard lock(mutex_);
  const auto block = blocks_.find(static_cast<char*>(begin));
  History history = std::move(block->second.history);
  madvise(begin, block->second.size, MADV_DONTNEED);
  blocks_.erase(block);
  return history;
}

Block* Memory::find(const void* address) {
  const std::lock_guard lock(mutex_);
  char* const place = static_cast<char*>(const_cast<void*>(address));
  auto next = blocks_.upper_bound(place);
  if (next == blocks_.begin()) return nullptr;
  Block& block = (--next)->second;
  return place < block.begin + block.size ? &block : nullptr;
}

void Memory::open(Block& block) {
  const std::lock_guard lock(mutex_);
  if (block.open++ == 0) mprotect(block.begin, block.size, PROT_READ | PROT_WRITE);
}

void Memory::close(Block& block) {
  const std::lock_guard lock(mutex_);
  if (--block.open == 0) mprotect(block.begin, block.size, PROT_NONE);
}

Memory& memory() {
  static Memory* const all = new Memory;  // outlives every tensor
  return *all;
}

}  // namespace dds::test::strict
