// Ctrl-C that ends a long run at a good place instead of anywhere.
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

/// While one lives, the first SIGINT or SIGTERM is only noted, for `interrupted`; a second one ends the process,
/// whatever handled it before. When the last one goes, what handled the signals before handles them again. Signals that
/// the program had set to be ignored (as under nohup) stay ignored. Not to be made or destroyed by two threads at once.
class CatchInterrupts {
 public:
  CatchInterrupts();
  ~CatchInterrupts();
  CatchInterrupts(const CatchInterrupts&) = delete;
  CatchInterrupts& operator=(const CatchInterrupts&) = delete;
};

/// True once a signal was noted, from any thread; false again when the next first CatchInterrupts is made.
bool interrupted();

/// The exit status by which a shell knows a program that Ctrl-C ended: 128 + SIGINT.
inline constexpr int kInterruptedExit = 130;

}  // namespace dds
