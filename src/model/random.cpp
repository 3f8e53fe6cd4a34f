#include "src/model/random.hpp"

#include <ATen/Context.h>

#include <mutex>

namespace dds {
namespace {

std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream) { return mix(mix(seed) + stream); }

at::Generator generator_for(at::Device device, std::uint64_t seed, std::uint64_t stream) {
  auto original = at::globalContext().defaultGenerator(device);
  at::Generator generator = [&] {
    const std::lock_guard<std::mutex> lock(original.mutex());
    return original.clone();
  }();
  generator.set_current_seed(mixed(seed, stream));
  return generator;
}

}  // namespace dds
