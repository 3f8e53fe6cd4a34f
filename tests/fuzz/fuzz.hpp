// What the fuzzers share. Each gives its parser the bytes of libFuzzer; what ends it is a crash, what a sanitiser
// finds, too much time or memory, an exception that is not of the library's family, and a promise that does not hold.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dds/error.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace dds::fuzz {

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// A folder of this process' own, in memory where there is such a place.
inline const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const std::filesystem::path memory = "/dev/shm";
    auto made = (std::filesystem::exists(memory) ? memory : std::filesystem::temp_directory_path()) /
                ("dds-fuzz-" + std::to_string(::getpid()));
    std::filesystem::remove_all(made);
    std::filesystem::create_directories(made);
    std::atexit([] {
      std::error_code error;
      std::filesystem::remove_all(folder(), error);
    });
    return made;
  }();
  return path;
}

inline void put(const std::filesystem::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

/// The files of a run stand in one input, with such a byte between them.
inline constexpr char kBetweenFiles = '\x1e';

inline std::vector<std::string_view> split(std::string_view text, char between) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(between);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// Ends the fuzzer, with what did not hold.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace dds::fuzz
