// What is said of a program and of its layers.
#pragma once

#include <dds/monitor.hpp>
#include <string>
#include <vector>

namespace dds::attach {

/// The words of the command line of this process, as the kernel has them.
std::vector<std::string> command_line();

/// For `dds attach --list`: a line LAYER<tab>USE for each use of each layer in the last step that was captured; of a
/// layer that was captured the uses that count as its runs alone.
std::string list_of_layers(const Monitor& monitor);

}  // namespace dds::attach
