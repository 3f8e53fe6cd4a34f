// The standard streams: any of them may be closed, and what lies behind one may be full.
#pragma once

#include <string>

namespace dds::tool {

/// Puts a stand-in in the place of each standard stream that is closed. A file that is opened later would otherwise get
/// its number, and with it what is printed. A command that is executed finds the stream closed again.
void hold_standard_streams() noexcept;

/// Throws IoError unless the standard output took all that was printed so far.
void flush_output();

/// Prints to the standard error. What cannot be printed there is dropped: there is nobody left to tell.
void complain(const std::string& text) noexcept;

}  // namespace dds::tool
