#include "src/base/check.hpp"

namespace dds {

std::string error_text(std::string_view function, std::string_view name, std::string_view value,
                       std::string_view expected) {
  return fmt::format("{}: {} is {}, expected {}", function, name, value, expected);
}

void throw_invalid(std::string_view function, std::string_view name, std::string_view value,
                   std::string_view expected) {
  throw InvalidArgument(error_text(function, name, value, expected));
}

}  // namespace dds
