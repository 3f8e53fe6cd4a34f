// What tells the parameters of one model from those of another.
#pragma once

#include <string>

#include "hooks/layers.hpp"

namespace dds {

/// "4 parameters, 59 numbers, hash 1f0e...": the hash is of all names and shapes. Empty where parameters are found as
/// they are used.
std::string identity_of(const hooks::ParameterSource& parameters);

}  // namespace dds
