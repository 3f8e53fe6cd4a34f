// What the file of a program or script says of how it is started.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace dds::tool {

/// The words of a script's first line after "#!", of whose first 256 bytes the kernel takes notice; empty if it is no
/// script.
std::vector<std::string> interpreter_of(const std::filesystem::path& file);

/// The path of the dynamic loader that a program asks for. Throws InvalidArgument with the reason where nothing could
/// be loaded into it: no program, not of 64 bits, linked statically, torn.
std::string loader_of(const std::filesystem::path& program);

}  // namespace dds::tool
