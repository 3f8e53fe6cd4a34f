#include "src/tool/program_file.hpp"

#include <elf.h>
#include <fmt/format.h>

#include <climits>
#include <cstring>
#include <dds/error.hpp>
#include <fstream>
#include <sstream>

#include "src/base/bytes.hpp"

namespace dds::tool {
namespace {

/// Whether a whole T is there.
template <typename T>
bool read_at(std::ifstream& stream, std::uint64_t offset, T& value) {
  const std::string bytes = read_bytes(stream, offset, sizeof value);
  std::memcpy(&value, bytes.data(), bytes.size());
  return bytes.size() == sizeof value;
}

}  // namespace

std::vector<std::string> interpreter_of(const std::filesystem::path& file) {
  constexpr std::size_t kNoticed = 256;
  std::ifstream stream(file, std::ios::binary);
  const std::string start = read_bytes(stream, 0, kNoticed);
  if (!start.starts_with("#!")) return {};
  std::istringstream text(start.substr(2, start.find('\n') - 2));
  std::vector<std::string> words;
  for (std::string word; text >> word;) words.push_back(word);
  return words;
}

std::string loader_of(const std::filesystem::path& program) {
  const auto refuse = [&](const std::string& why) {
    throw InvalidArgument(fmt::format("attach: {} {}", program.string(), why));
  };
  std::ifstream stream(program, std::ios::binary);
  Elf64_Ehdr header = {};
  if (!read_at(stream, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    refuse("is neither a program nor a script with #! in its first line");
  if (header.e_ident[EI_CLASS] != ELFCLASS64) refuse("is no program of 64 bits");
  for (std::uint64_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment = {};
    if (!read_at(stream, header.e_phoff + i * header.e_phentsize, segment)) refuse("ends before its last segment");
    if (segment.p_type != PT_INTERP) continue;
    if (segment.p_filesz > PATH_MAX) refuse(fmt::format("asks for a loader by a path of {} bytes", segment.p_filesz));
    std::string loader = read_bytes(stream, segment.p_offset, segment.p_filesz);
    loader = loader.substr(0, loader.find('\0'));
    if (loader.empty()) refuse("asks for a loader without a name");
    return loader;
  }
  refuse("is linked statically: nothing can be loaded into it");
  return {};
}

}  // namespace dds::tool
