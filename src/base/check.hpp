// Checks of arguments. Every message has one form: "FUNCTION: NAME is VALUE, expected EXPECTED".
//
//   check_at_least("read", "batch_size", options.batch_size(), 1);
//   // InvalidArgument: "read: batch_size is 0, expected at least 1"
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <dds/error.hpp>
#include <string>
#include <string_view>

namespace at {
class Tensor;
}

namespace dds {

/// Throws InvalidArgument with the message above.
[[noreturn]] void throw_invalid(std::string_view function, std::string_view name, std::string_view value,
                                std::string_view expected);

/// Throws unless `valid`.
template <class T>
void check(bool valid, std::string_view function, std::string_view name, const T& value, std::string_view expected) {
  if (!valid) throw_invalid(function, name, fmt::format("{}", value), expected);
}

/// Throws unless value >= least; a NaN is never.
template <class T>
void check_at_least(std::string_view function, std::string_view name, const T& value, const T& least) {
  if (!(value >= least)) throw_invalid(function, name, fmt::format("{}", value), fmt::format("at least {}", least));
}

/// Throws unless low <= value <= high.
template <class T>
void check_within(std::string_view function, std::string_view name, const T& value, const T& low, const T& high) {
  if (!(value >= low && value <= high)) {
    throw_invalid(function, name, fmt::format("{}", value), fmt::format("at least {} and at most {}", low, high));
  }
}

/// Throws unless `value` is finite and above zero.
inline void check_positive(std::string_view function, std::string_view name, double value) {
  if (!(value > 0) || !std::isfinite(value)) {
    throw_invalid(function, name, fmt::format("{}", value), "a positive number");
  }
}

/// Throws for a null pointer or an empty function.
template <class Pointer>
void check_given(std::string_view function, std::string_view name, const Pointer& value, std::string_view expected) {
  if (!value) throw_invalid(function, name, "null", expected);
}

/// Throws for a container without elements.
template <class Container>
void check_not_empty(std::string_view function, std::string_view name, const Container& value,
                     std::string_view expected) {
  if (value.empty()) throw_invalid(function, name, "empty", expected);
}

/// "Float [3, 4]", "undefined": what a message says of a tensor.
std::string text_of(const at::Tensor& tensor);

}  // namespace dds
