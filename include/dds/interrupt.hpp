// Ctrl-C ends a long run between two steps, with its log and report written.
//
//   const dds::CatchInterrupts catching;
//   while (step < last && !dds::interrupted()) {
//     auto scope = monitor.step();
//     ...
//   }
//   monitor.flush();
//   dds::write_report("runs/a");        // of the steps so far
//   return dds::interrupted() ? dds::kInterruptedExit : 0;
//
// For estimate_llc: LlcOptions().cancelled(dds::interrupted).
#pragma once

#include <dds/export.hpp>

namespace DDS_EXPORT dds {

/// While an object of this class exists, the first SIGINT or SIGTERM is only noted, for `interrupted`. A second one of
/// the same signal ends the process.
/// When the last object is destroyed, the earlier handlers are put back.
/// Signals that the program ignores (as under nohup) stay ignored.
/// Threads: objects are made and destroyed by one thread at a time.
class CatchInterrupts {
 public:
  CatchInterrupts();
  ~CatchInterrupts();
  CatchInterrupts(const CatchInterrupts&) = delete;
  CatchInterrupts& operator=(const CatchInterrupts&) = delete;
};

/// True once a signal was noted. False again when a CatchInterrupts is made while no other exists.
/// Threads: any.
bool interrupted();

/// The exit status by which shells know that Ctrl-C ended a program: 128 + SIGINT.
inline constexpr int kInterruptedExit = 130;

}  // namespace dds
