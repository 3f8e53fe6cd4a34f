#include "src/base/check.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

namespace dds {

void throw_invalid(std::string_view function, std::string_view name, std::string_view value,
                   std::string_view expected) {
  throw InvalidArgument(fmt::format("{}: {} is {}, expected {}", function, name, value, expected));
}

std::string text_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
}

}  // namespace dds
