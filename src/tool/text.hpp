// Text for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace dds::tool {

/// Text out of a file for the terminal, which control characters could command: each becomes '?'.
std::string printable(std::string_view text);

/// The line that says what is wrong: of a message of the TorchScript interpreter the last, of all others the first.
std::string one_line(std::string text);

}  // namespace dds::tool
