// The models that the threads of an estimate run their chains on.
#pragma once

#include <dds/llc.hpp>
#include <string>
#include <vector>

#include "src/llc/objective.hpp"
#include "src/model/replica.hpp"

namespace dds {

/// Adds replicas for the threads beside this one to the first, which is the caller's own model at w*. Returns how they
/// were made: "clone", "factory" or, if there is none, "in turn". Each gives the model's own gradient bit for bit: a
/// clone can differ where a model ties or replaces members outside reset().
///
/// Throws InvalidArgument for a factory whose model does not.
std::string add_replicas(std::vector<Replica>& replicas, const Problem& problem, const LlcOptions& options,
                         const std::vector<std::string>& names, const Objective& objective);

}  // namespace dds
