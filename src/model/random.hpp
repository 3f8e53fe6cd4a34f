// Generators of our own: the default one is never drawn from.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Generator.h>

#include <cstdint>

namespace dds {

/// A generator on `device`, seeded; the device's default generator is left alone.
inline at::Generator make_generator(at::Device device, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace dds
