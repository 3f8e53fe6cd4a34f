#include "src/attach/peek.hpp"

#include <cxxabi.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace dds::attach {

bool peek(const void* address, void* to, std::size_t size) {
  if (size == 0) return true;
  const iovec here{to, size}, there{const_cast<void*>(address), size};
  return ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0) == static_cast<ssize_t>(size);
}

std::string peek_text(const void* address, std::size_t longest) {
  constexpr std::size_t kPage = 4096;  // a read that crosses into a page that is not there would fail as a whole
  std::string text;
  auto at = reinterpret_cast<std::uintptr_t>(address);
  while (text.size() < longest) {
    const std::size_t size = std::min(longest - text.size(), kPage - at % kPage);
    std::string part(size, '\0');
    if (!peek(reinterpret_cast<const void*>(at), part.data(), size)) break;
    const std::size_t end = part.find('\0');
    text += part.substr(0, end);
    if (end != std::string::npos) break;
    at += size;
  }
  return text;
}

std::string peek_class(const void* address) {
  // Itanium ABI: before the table of virtual functions stands the std::type_info, whose second word is the name.
  const auto table = peek<const void* const*>(address);
  const auto type = table ? peek<const void* const*>(*table - 1) : std::nullopt;
  const auto name = type ? peek<const char*>(*type + 1) : std::nullopt;
  if (!name) return "";
  const std::string mangled = peek_text(*name + (peek<char>(*name) == '*' ? 1 : 0));
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 && plain ? plain.get() : "";
}

}  // namespace dds::attach
