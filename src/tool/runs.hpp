// What several subcommands ask of a run.
#pragma once

#include <dds/run.hpp>
#include <filesystem>
#include <vector>

#include "src/tool/new_run.hpp"

namespace dds::tool {

/// The last reading of every series, in order of the series' first appearance.
std::vector<const Signature*> last_readings(const log::Run& run);

/// Throws InvalidArgument, which names `command`, if there is such a file and `overwrite` is false.
void check_free(const char* command, const std::filesystem::path& file, bool overwrite);

}  // namespace dds::tool
