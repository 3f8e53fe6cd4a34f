// Where a run may begin.
#pragma once

#include <filesystem>

namespace dds::tool {

/// Throws InvalidArgument, which names `command`, unless a run can begin in the folder that --out gives: it is not
/// there yet, or nothing is in it.
void check_new_run(const char* command, const std::filesystem::path& out);

}  // namespace dds::tool
