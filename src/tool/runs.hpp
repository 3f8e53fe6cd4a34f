// What several subcommands ask of a run.
#pragma once

#include <dds/run.hpp>
#include <vector>

namespace dds::tool {

/// The last reading of every series, in order of the series' first appearance.
std::vector<const Signature*> last_readings(const log::Run& run);

}  // namespace dds::tool
