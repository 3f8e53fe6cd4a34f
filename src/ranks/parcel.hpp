// A message between ranks: values one after another, as bytes. All ranks are of one architecture, as c10d's are.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace dds {

/// What may be any bytes, unlike a bool or an enumerator.
template <class T>
concept Plain = std::is_arithmetic_v<T> && !std::same_as<T, bool>;
template <class T>
concept Enumeration = std::is_enum_v<T>;

/// Values are taken in the order in which they were put, by their types. Taking more than is there, or bytes that are
/// none of the type's values, is a RankError; whatever the bytes, no more memory is taken than some times their number.
class Parcel {
 public:
  Parcel() = default;
  explicit Parcel(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  template <Plain T>
  void put(const T& value) {
    append(&value, sizeof value);
  }
  template <std::same_as<bool> T>
  void put(const T& value) {
    put(static_cast<std::uint8_t>(value));
  }
  template <Enumeration T>
  void put(const T& value) {
    put(static_cast<std::underlying_type_t<T>>(value));
  }
  void put(std::string_view text);
  void put(const std::string& text) { put(std::string_view(text)); }
  void put(const std::vector<double>& values);
  void put(const std::vector<at::Tensor>& tensors);
  /// Any dtype and device; undefined tensors too.
  void put(const at::Tensor& tensor);

  template <Plain T>
  void take(T& value) {
    std::memcpy(&value, next(sizeof value), sizeof value);
  }
  void take(bool& value) { value = checked(take<std::uint8_t>(), 1) == 1; }
  void take(std::string& text);
  void take(std::vector<double>& values);
  void take(std::vector<at::Tensor>& tensors);
  /// On the CPU.
  void take(at::Tensor& tensor);
  template <class T>
  T take() {
    T value{};
    take(value);
    return value;
  }
  /// Of an enumeration from 0 to `last`.
  template <Enumeration T>
  T take_up_to(T last) {
    const auto value = static_cast<std::int64_t>(take<std::underlying_type_t<T>>());
    return static_cast<T>(checked(value, static_cast<std::int64_t>(last)));
  }
  /// What was counted: from 0 to 2^48, so that the sum over all ranks is a number too.
  std::int64_t take_tally() { return checked(take<std::int64_t>(), std::int64_t{1} << 48); }

  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool at_end() const { return read_ == bytes_.size(); }

 private:
  void append(const void* data, std::size_t size);
  const std::byte* next(std::size_t size);
  std::size_t take_count(std::size_t entry_size);
  /// `value`, which is from 0 to `most`.
  static std::int64_t checked(std::int64_t value, std::int64_t most);

  std::vector<std::byte> bytes_;
  std::size_t read_ = 0;
};

}  // namespace dds
