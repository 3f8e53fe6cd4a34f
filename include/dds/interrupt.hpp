// Ctrl-C: a long run ends between two steps, with its log and report written.
//
//   const dds::CatchInterrupts catching;
//   while (step < last && !dds::interrupted()) {
//     auto scope = monitor.step();
//     ...
//   }
//   monitor.flush();
//   dds::write_report("runs/a");        // of what there is
//   return dds::interrupted() ? dds::kInterruptedExit : 0;
//
// The same for a chain: LlcOptions().cancelled(dds::interrupted).
#pragma once

#include <dds/export.hpp>

namespace DDS_EXPORT dds {

/// While one lives, the first SIGINT or SIGTERM is only noted, for `interrupted`. A second one ends the process.
/// When the last one is destroyed, the handlers from before are put back.
/// Signals that the program ignores (as under nohup) stay ignored.
/// Not to be made or destroyed by two threads at once.
class CatchInterrupts {
 public:
  CatchInterrupts();
  ~CatchInterrupts();
  CatchInterrupts(const CatchInterrupts&) = delete;
  CatchInterrupts& operator=(const CatchInterrupts&) = delete;
};

/// True once a signal was noted. May be called from any thread. False again when a CatchInterrupts is made while no
/// other lives.
bool interrupted();

/// The exit status of a program that Ctrl-C ended, as shells know it: 128 + SIGINT.
inline constexpr int kInterruptedExit = 130;

}  // namespace dds
