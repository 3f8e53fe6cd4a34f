// Reads memory that may be gone: the kernel copies it, and says so where there is none. For objects whose end nobody
// tells, such as a torch::nn::Module on another thread's stack.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace dds::attach {

/// Copies `size` bytes from `address`; false if not all of them can be read.
bool peek(const void* address, void* to, std::size_t size);

template <class Value>
std::optional<Value> peek(const void* address) {
  static_assert(std::is_trivially_copyable_v<Value>);
  Value value;
  return peek(address, &value, sizeof value) ? std::optional(value) : std::nullopt;
}

/// The characters up to the first zero, at most so many.
std::string peek_text(const void* address, std::size_t longest = 1024);

/// A std::string of the C++11 ABI as it lies in memory.
struct RawString {
  const char* data;
  std::size_t size;
  char own[16];
};

/// The items of the std::vector at `address`; empty if it cannot be one.
template <class Item>
std::vector<Item> peek_vector(const void* address, std::size_t most = 65536) {
  static_assert(std::is_trivially_copyable_v<Item> && sizeof(std::vector<Item>) == 3 * sizeof(void*));
  struct Raw {
    const char *begin, *end, *capacity;
  };
  const auto raw = peek<Raw>(address);
  if (!raw || raw->end <= raw->begin || raw->capacity < raw->end) return {};
  const auto bytes = static_cast<std::size_t>(raw->end - raw->begin);
  if (bytes % sizeof(Item) != 0 || bytes / sizeof(Item) > most) return {};
  std::vector<Item> items(bytes / sizeof(Item));
  if (!peek(raw->begin, items.data(), bytes)) items.clear();
  return items;
}

/// The name of the class of the polymorphic object at `address`, as a program writes it; empty if it has none.
std::string peek_class(const void* address);

}  // namespace dds::attach
