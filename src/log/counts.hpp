// The count of dying directions, from a run that was read back.
#pragma once

#include <dds/decay.hpp>
#include <dds/run.hpp>
#include <vector>

namespace dds::log {

std::vector<DecayCount> decay_counts(const Run& run, DecayOptions options = {});

}  // namespace dds::log
