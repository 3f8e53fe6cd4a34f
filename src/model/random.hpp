// Generators of our own: the default one is never drawn from.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace dds {

/// A number that depends on both, different from those of neighbouring seeds and streams in every bit (SplitMix64).
std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream);

/// A generator on `device` that depends on `seed` and `stream` alone; the device's default generator is left as it is.
at::Generator generator_for(at::Device device, std::uint64_t seed, std::uint64_t stream = 0);

}  // namespace dds
