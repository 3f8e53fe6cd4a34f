#pragma once

#include <exception>
#include <string>

namespace dds {

/// What an error says. Of PyTorch's own errors the first line: a backtrace follows it.
std::string plain_message(const std::exception& error);

}  // namespace dds
