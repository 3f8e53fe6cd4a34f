#include "src/monitor/identity.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "src/base/check.hpp"

namespace dds {

std::string identity_of(const hooks::ParameterSource& parameters) {
  if (parameters.grows()) return "";
  // FNV-1a: it is kept in files, so it must not depend on a standard library.
  constexpr std::uint64_t kBasis = 0xcbf29ce484222325, kPrime = 0x100000001b3;
  std::uint64_t hash = kBasis;
  std::int64_t count = 0, numbers = 0;
  parameters.for_each([&](const hooks::FoundParameter& found) {
    ++count;
    numbers += found.tensor.numel();
    for (const char c : fmt::format("{} {}\n", found.name, text_of(found.tensor.sizes())))
      hash = (hash ^ static_cast<unsigned char>(c)) * kPrime;
  });
  return fmt::format("{} parameters, {} numbers, hash {:016x}", count, numbers, hash);
}

}  // namespace dds
