// Checks of arguments. Every message has one form: "FUNCTION: NAME is VALUE, expected EXPECTED".
//
//   check_at_least("read", "batch_size", options.batch_size(), 1);
//   // InvalidArgument: "read: batch_size is 0, expected at least 1"
//
// FUNCTION is what the user called, NAME an argument, option or entry of it ("y[3]", "the size of y").
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace at {
class Tensor;
}
namespace c10 {
template <class T>
class ArrayRef;
}

namespace dds {

/// What a message says of a tensor: "Float [3, 4]", or "undefined".
std::string text_of(const at::Tensor& tensor);

/// Of sizes: "[3, 4]".
std::string text_of(c10::ArrayRef<std::int64_t> sizes);

/// The message, for an error of another class than InvalidArgument.
std::string error_text(std::string_view function, std::string_view name, std::string_view value,
                       std::string_view expected);

/// Throws InvalidArgument with that message.
[[noreturn]] void throw_invalid(std::string_view function, std::string_view name, std::string_view value,
                                std::string_view expected);

/// What a message says of any value: text in quotes, tensors and sizes as above, all else as fmt writes it.
template <class T>
std::string value_text(const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return fmt::format("'{}'", std::string_view(value));
  } else if constexpr (std::is_same_v<T, at::Tensor> || std::is_same_v<T, c10::ArrayRef<std::int64_t>>) {
    return text_of(value);
  } else {
    return fmt::format("{}", value);
  }
}

/// Throws unless `valid`.
template <class T>
void check(bool valid, std::string_view function, std::string_view name, const T& value, std::string_view expected) {
  if (!valid) throw_invalid(function, name, value_text(value), expected);
}

/// The same; what is expected has arguments, which are put into words only where it throws:
///   check(last <= n, "Data::slice", "end", last, "at most {}, the number of samples", n);
template <class T, class First, class... Rest>
void check(bool valid, std::string_view function, std::string_view name, const T& value,
           fmt::format_string<const First&, const Rest&...> expected, const First& first, const Rest&... rest) {
  if (!valid) throw_invalid(function, name, value_text(value), fmt::format(expected, first, rest...));
}

/// Throws unless value >= least; a NaN is never.
template <class T>
void check_at_least(std::string_view function, std::string_view name, const T& value,
                    const std::type_identity_t<T>& least) {
  check(value >= least, function, name, value, "at least {}", least);
}

/// Throws unless low <= value <= high.
template <class T>
void check_within(std::string_view function, std::string_view name, const T& value, const std::type_identity_t<T>& low,
                  const std::type_identity_t<T>& high) {
  check(value >= low && value <= high, function, name, value, "at least {} and at most {}", low, high);
}

/// Throws unless low < value < high.
inline void check_between(std::string_view function, std::string_view name, double value, double low, double high) {
  check(value > low && value < high, function, name, value, "a number between {} and {}", low, high);
}

/// Throws unless `value` is finite and above zero.
inline void check_positive(std::string_view function, std::string_view name, double value) {
  check(value > 0 && std::isfinite(value), function, name, value, "a positive number");
}

/// Throws for the first of `values` that is not finite: "y[3] is nan, expected a finite number".
inline void check_finite(std::string_view function, std::string_view name, std::span<const double> values) {
  const auto bad = std::find_if_not(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
  if (bad == values.end()) return;
  throw_invalid(function, fmt::format("{}[{}]", name, bad - values.begin()), value_text(*bad), "a finite number");
}

/// Throws unless a series has as many values as another one: "the size of y is 2, expected 5, the size of x".
inline void check_as_many(std::string_view function, std::string_view name, std::size_t size, std::string_view other,
                          std::size_t expected) {
  check(size == expected, function, fmt::format("the size of {}", name), size, "{}, the size of {}", expected, other);
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

}  // namespace dds
