#include <array>
#include <atomic>
#include <csignal>
#include <dds/interrupt.hpp>

namespace dds {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};

// A signal handler may touch nothing but lock-free atomics.
std::atomic<bool> noted = false;
static_assert(std::atomic<bool>::is_always_lock_free);

int living = 0;
std::array<struct sigaction, kSignals.size()> before;

void note(int) { noted = true; }

}  // namespace

CatchInterrupts::CatchInterrupts() {
  if (living++ > 0) return;
  noted = false;
  struct sigaction action = {};
  action.sa_handler = note;
  // The second signal is not caught, and system calls of the user's are not cut short.
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before[i]);
    if (before[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

CatchInterrupts::~CatchInterrupts() {
  if (--living > 0) return;
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
}

bool interrupted() { return noted; }

}  // namespace dds
