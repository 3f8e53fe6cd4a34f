// What both programs behind the command `dds` do with a command line: the one that attaches, which links no LibTorch,
// and the one with all the rest.
#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <functional>
#include <string>

namespace dds::tool {

/// Obeys the command line with the subcommands that `add` adds, and returns the exit code. What goes wrong is one line
/// on the standard error; `message_of` has what an exception says.
int enter(int argc, char** argv, const std::function<void(CLI::App&)>& add,
          const std::function<std::string(const std::exception&)>& message_of);

}  // namespace dds::tool
