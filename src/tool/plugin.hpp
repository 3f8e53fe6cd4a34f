// The two objects of src/attach that a command is started with.
#pragma once

#include <filesystem>
#include <string>

#include "src/tool/executable.hpp"

namespace dds::tool {

/// The object for LD_PRELOAD, which is the same for every LibTorch. Throws IoError if it is not where it is built or
/// installed.
std::filesystem::path preload_object();

/// The plugin that was built with this tool, for a LibTorch of own_version(), and that version: "2.15.0".
std::filesystem::path own_plugin();
std::string own_version();

/// The plugin for a LibTorch: the one that was built with this tool, if it was for the same version, or else one that
/// is built once, from the source tree of this tool, into the user's cache (XDG_CACHE_HOME, else ~/.cache). Throws
/// IoError where there is no source tree, or the build fails; the message says what to do.
std::filesystem::path plugin_for(const Torch& torch);

}  // namespace dds::tool
