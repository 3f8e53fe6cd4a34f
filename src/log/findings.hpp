// What a run shows, in plain sentences, each with the numbers that it rests on.
#pragma once

#include <dds/decay.hpp>
#include <dds/run.hpp>
#include <string>
#include <vector>

#include "src/log/comparison.hpp"

namespace dds::log {

std::vector<std::string> findings(const Run& run, const std::vector<Comparison>& comparisons,
                                  const std::vector<DecayCount>& counts);

}  // namespace dds::log
