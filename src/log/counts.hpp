// The count of dying directions, from a run that was read back.
#pragma once

#include <dds/decay.hpp>
#include <vector>

#include "src/log/run.hpp"

namespace dds::log {

std::vector<DecayCount> decay_counts(const Run& run, DecayOptions options = {});

}  // namespace dds::log
