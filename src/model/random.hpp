// The library's own generators. It never draws from the default one.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace dds {

/// A number from both, by SplitMix64: for neighbouring seeds or streams each bit differs with probability 1/2.
std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream);

/// A generator on `device` whose numbers depend on `seed` and `stream` alone. The default generator of the device is
/// not changed.
at::Generator generator_for(at::Device device, std::uint64_t seed, std::uint64_t stream = 0);

}  // namespace dds
