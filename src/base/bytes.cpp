#include "src/base/bytes.hpp"

namespace dds {

std::string read_bytes(std::istream& stream, std::uint64_t offset, std::size_t size) {
  std::string bytes(size, '\0');
  stream.clear();
  stream.seekg(static_cast<std::streamoff>(offset));
  stream.read(bytes.data(), static_cast<std::streamsize>(size));
  bytes.resize(static_cast<std::size_t>(stream.gcount()));
  return bytes;
}

}  // namespace dds
