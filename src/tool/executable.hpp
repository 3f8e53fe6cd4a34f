// Which file a command runs, and which LibTorch that will load.
#pragma once

#include <dds/error.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace dds::tool {

/// There is no such command, or it is no program that can be run.
struct NotRunnable : InvalidArgument {
  NotRunnable(const std::string& what, bool is_there) : InvalidArgument(what), exit_code(is_there ? 126 : 127) {}
  int exit_code;  ///< as shells have it
};

/// It is a program that loads no LibTorch itself. What it starts may.
struct LoadsNoTorch : InvalidArgument {
  using InvalidArgument::InvalidArgument;
};

/// A LibTorch on disk.
struct Torch {
  std::filesystem::path library;  ///< libtorch_cpu.so, without links
  std::string version;            ///< "2.15.0"
};

/// The LibTorch in a folder with lib/libtorch_cpu.so, such as the `torch` folder of a wheel, or of a library's own
/// path. Throws InvalidArgument if there is none, its version is not to be found, or it has the C++ ABI from before
/// C++11.
Torch torch_at(const std::filesystem::path& folder_or_library);

/// The LibTorch that `command` will run on: of a program the one that the dynamic loader finds for it, of Python that
/// of its `torch` package; scripts are followed to their interpreters. Throws InvalidArgument with the reason where
/// nothing could be attached to (NotRunnable: no such program): set-uid, linked statically. LoadsNoTorch: see there.
Torch torch_of(const std::vector<std::string>& command);

/// The words as execvp and posix_spawn take them, with a null pointer at the end: valid as long as `command` is.
std::vector<char*> argv_of(const std::vector<std::string>& command);

/// What a program prints, and whether it ended well. Not through a shell.
struct Output {
  std::string text;
  bool success = false;
};
Output output_of(const std::vector<std::string>& command);

}  // namespace dds::tool
