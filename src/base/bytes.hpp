// Parts of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>

namespace dds {

/// The bytes from `offset` on, at most `size`: fewer where the stream ends.
std::string read_bytes(std::istream& stream, std::uint64_t offset, std::size_t size);

}  // namespace dds
