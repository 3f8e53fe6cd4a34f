#include "src/base/check.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

namespace dds {

std::string text_of(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("{} {}", c10::toString(tensor.scalar_type()), text_of(tensor.sizes()))
                          : "undefined";
}

std::string text_of(c10::ArrayRef<std::int64_t> sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

std::string error_text(std::string_view function, std::string_view name, std::string_view value,
                       std::string_view expected) {
  return fmt::format("{}: {} is {}, expected {}", function, name, value, expected);
}

void throw_invalid(std::string_view function, std::string_view name, std::string_view value,
                   std::string_view expected) {
  throw InvalidArgument(error_text(function, name, value, expected));
}

}  // namespace dds
