// What a file is, in the words of an error message: people hand over a state_dict where a network is asked for.
#pragma once

#include <filesystem>
#include <string>

namespace dds {

/// What kind_of_file says of an archive that LibTorch itself can read.
inline constexpr const char* kTorchScriptArchive = "a TorchScript archive";

/// "a state_dict (parameters without a network)", "a NumPy array (.npy)", "an empty file", ...: told by the first bytes
/// and, of an archive, by what is in it. Empty for a file that cannot be read.
std::string kind_of_file(const std::filesystem::path& path);

}  // namespace dds
