#include "src/tool/executable.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dds/error.hpp>
#include <regex>
#include <sstream>

#include "src/attach/names.hpp"
#include "src/base/check.hpp"
#include "src/log/file.hpp"
#include "src/tool/program_file.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& why) { throw InvalidArgument("attach: " + why); }

/// The file that execvp would run.
fs::path found_on_path(const std::string& name) {
  const auto runnable = [](const fs::path& file) {
    std::error_code hidden;  // in a folder that may not be searched
    return fs::is_regular_file(file, hidden) && ::access(file.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    if (runnable(name)) return name;
    const bool is_there = log::is_there(name);
    throw NotRunnable(fmt::format("attach: {} is no program that could be run", name), is_there);
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path file = fs::path(folder.empty() ? "." : folder) / name;
    if (runnable(file)) return file;
  }
  throw NotRunnable(fmt::format("attach: there is no command {}", name), false);
}

/// The loader drops LD_PRELOAD for programs that run with more rights than their user has.
void check_rights(const fs::path& program) {
  struct stat status = {};
  const bool set_id = ::stat(program.c_str(), &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) != 0;
  if (set_id || ::getxattr(program.c_str(), "security.capability", nullptr, 0) > 0) {
    refuse(fmt::format(
        "{} runs with other rights than yours (set-uid, set-gid or capabilities): nothing can be loaded into it",
        program.string()));
  }
}

bool is_python(const fs::path& program) {
  static const std::regex name("python[0-9.]*(-[a-z]+)?");
  std::error_code none;
  return std::regex_match(program.filename().string(), name) ||
         std::regex_match(fs::canonical(program, none).filename().string(), name);
}

/// Where the loader finds LibTorch for the program; empty if it needs none. It lists what it would load and runs
/// nothing.
fs::path needed_by(const fs::path& program) {
  const std::string list = output_of({loader_of(program), "--list", program.string()}).text;
  std::smatch match;
  static const std::regex line(R"((libtorch_cpu\.so\S*) => (not found|/\S.*?)(?: \(0x[0-9a-f]+\))?\n)");
  if (!std::regex_search(list, match, line)) return {};
  if (match[2] == "not found")
    refuse(fmt::format("{} needs {}, which the loader does not find", program.string(), match[1].str()));
  return match[2].str();
}

bool contains(const fs::path& file, std::string_view text) {
  const std::string content = log::read_file(file);
  return content.find(text) != std::string::npos;
}

/// The `torch` package of an interpreter, found without importing it.
fs::path package_of(const fs::path& python) {
  const Output output = output_of({python.string(), "-c",
                                   "import importlib.util, pathlib\n"
                                   "spec = importlib.util.find_spec('torch')\n"
                                   "print(pathlib.Path(spec.origin).parent if spec and spec.origin else '')"});
  std::string folder = output.text;
  while (!folder.empty() && folder.back() == '\n') folder.pop_back();
  if (!output.success || folder.empty()) refuse(fmt::format("{} has no package torch", python.string()));
  return folder;
}

/// The program that runs in the end: past scripts and `env`.
fs::path followed(std::vector<std::string> command) {
  constexpr int kDeepest = 5;
  for (int depth = 0; depth < kDeepest; ++depth) {
    const fs::path program = found_on_path(command.front());
    check_rights(program);
    std::vector<std::string> interpreter = interpreter_of(program);
    if (interpreter.empty()) return program;
    if (fs::path(interpreter.front()).filename() == "env") {
      interpreter.erase(interpreter.begin());
      std::erase_if(interpreter, [](const std::string& word) {
        return word.starts_with('-') || word.find('=') != std::string::npos;
      });
      if (interpreter.empty()) refuse(fmt::format("{}: its first line names no interpreter", program.string()));
    }
    command = std::move(interpreter);
  }
  refuse(fmt::format("{} goes through too many scripts", command.front()));
}

std::string version_of(const fs::path& library) {
  for (fs::path folder = library.parent_path().parent_path(); folder.has_relative_path();
       folder = folder.parent_path()) {
    for (const char* header : {"include/torch/headeronly/version.h", "include/torch/version.h",
                               "include/torch/csrc/api/include/torch/version.h"}) {
      if (!fs::exists(folder / header)) continue;
      const std::string text = log::read_file(folder / header);
      std::vector<std::string> numbers;
      for (const char* part : {"MAJOR", "MINOR", "PATCH"}) {
        std::smatch match;
        if (std::regex_search(text, match, std::regex(fmt::format("#define TORCH_VERSION_{} ([0-9]+)", part)))) {
          numbers.push_back(match[1]);
        }
      }
      if (numbers.size() == 3) return fmt::format("{}", fmt::join(numbers, "."));
    }
  }
  refuse(fmt::format("{} comes without its headers: which version it is cannot be told, nor a plugin built for it",
                     library.string()));
}

}  // namespace

std::vector<char*> argv_of(const std::vector<std::string>& command) {
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  return words;
}

Output output_of(const std::vector<std::string>& command) {
  std::array<int, 2> ends = {};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw IoError(fmt::format("pipe: {}", std::strerror(errno)));
  const log::Descriptor reading(ends[0]);
  const std::vector<char*> words = argv_of(command);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, words.front(), &files, nullptr, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::close(ends[1]);
  if (error != 0) return {};
  Output output;
  std::array<char, 4096> buffer = {};
  for (ssize_t size; (size = ::read(reading.get(), buffer.data(), buffer.size())) != 0;) {
    if (size > 0) output.text.append(buffer.data(), static_cast<std::size_t>(size));
    if (size < 0 && errno != EINTR) break;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  output.success = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return output;
}

Torch torch_at(const fs::path& folder_or_library) {
  fs::path library = folder_or_library;
  if (fs::is_directory(library)) library = library / "lib" / attach::kTorchLibrary;
  if (!fs::exists(library)) {
    throw_invalid("attach", "LibTorch", value_text(folder_or_library.string()),
                  fmt::format("the torch folder of a wheel, with lib/{} in it", attach::kTorchLibrary));
  }
  Torch torch{fs::canonical(library), ""};
  torch.version = version_of(torch.library);
  fs::path c10;
  for (const fs::directory_entry& entry : fs::directory_iterator(torch.library.parent_path())) {
    if (entry.path().filename().string().starts_with("libc10.so")) c10 = entry.path();
  }
  if (!c10.empty() && contains(c10, DDS_OLD_ABI)) {
    refuse(fmt::format("LibTorch {} at {} has the C++ ABI from before C++11, for which there is no plugin",
                       torch.version, torch.library.string()));
  }
  return torch;
}

Torch torch_of(const std::vector<std::string>& command) {
  const fs::path program = followed(command);
  const std::string loader = loader_of(program);
  if (is_python(program)) return torch_at(package_of(program));
  if (const fs::path library = needed_by(program); !library.empty()) return torch_at(library);
  constexpr std::string_view kClass = "N5torch8autograd4NodeE";  // a class's name that no stripping takes away
  if (contains(program, kClass)) {
    refuse(
        fmt::format("{} has LibTorch linked into it: it can be attached to a shared LibTorch only", program.string()));
  }
  throw LoadsNoTorch(fmt::format("attach: {} loads no LibTorch", program.string()));
}

}  // namespace dds::tool
