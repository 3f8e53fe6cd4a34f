// The program `dds`. It attaches by itself, and links no LibTorch for that: loading one takes longer than all else that
// `dds attach` does. For other commands it executes the program that has them, in its own place.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "src/tool/command.hpp"
#include "src/tool/entry.hpp"
#include "src/tool/streams.hpp"

namespace {

namespace fs = std::filesystem;

int execute_the_rest(char** argv) {
  constexpr const char* kName = "dds-commands";
  std::error_code error;
  const fs::path here = fs::canonical("/proc/self/exe", error).parent_path();
  for (const char* folder : {".", DDS_ATTACH_INSTALLED}) ::execv((here / folder / kName).c_str(), argv);
  dds::tool::complain(fmt::format("dds: error: {} is neither beside {} nor where it is installed: {}\n", kName,
                                  here.string(), std::strerror(errno)));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argv[1] != std::string_view("attach")) return execute_the_rest(argv);
  dds::tool::hold_standard_streams();
  return dds::tool::enter(argc, argv, dds::tool::add_attach, [](const std::exception& error) { return error.what(); });
}
