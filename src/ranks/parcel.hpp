// A message between ranks: values one after another, as bytes. All ranks are of one architecture, as c10d's are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace dds {

template <class T>
concept Plain = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>;

/// Values are taken in the order in which they were put, by their types. Taking more than is there, or something else,
/// is a RankError as far as it can be noticed.
class Parcel {
 public:
  Parcel() = default;
  explicit Parcel(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  template <Plain T>
  void put(const T& value) {
    append(&value, sizeof value);
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

  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool at_end() const { return read_ == bytes_.size(); }

 private:
  void append(const void* data, std::size_t size);
  const std::byte* next(std::size_t size);
  std::size_t take_count(std::size_t entry_size);

  std::vector<std::byte> bytes_;
  std::size_t read_ = 0;
};

}  // namespace dds
