// `dds attach`: starts a command in which the plugin of src/attach reads the layers.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dds/error.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "src/log/file.hpp"
#include "src/tool/command.hpp"
#include "src/tool/executable.hpp"
#include "src/tool/plugin.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> command;
  std::string out, torch;
  std::vector<std::string> layers;
  std::int64_t every = 100, max_rows = 65536;
  std::optional<std::int64_t> stop_after;
  bool snapshots = false, list = false;
};

/// KEY=VALUE for DDS_ATTACH (src/attach/settings.hpp).
std::string setting(const std::string& key, const std::string& value) {
  if (value.find(':') != std::string::npos) {
    throw InvalidArgument(
        fmt::format("attach: {} '{}' has a colon, which separates the settings of DDS_ATTACH", key, value));
  }
  return fmt::format("{}={}:", key, value);
}

void check_out(const fs::path& out) {
  if (!fs::exists(out)) return;
  if (!fs::is_directory(out)) throw IoError(fmt::format("attach: {} is a file, expected a directory", out.string()));
  if (!fs::is_empty(out)) throw IoError(fmt::format("attach: {} is not empty: choose another directory", out.string()));
}

void set_environment(const Options& options, const fs::path& list) {
  const Torch torch = options.torch.empty() ? torch_of(options.command) : torch_at(options.torch);
  const fs::path out = options.out.empty() ? fs::path(fmt::format("dds-attach.{}", ::getpid())) : fs::path(options.out);
  check_out(out);
  std::string settings = setting("plugin", plugin_for(torch).string()) + setting("torch", torch.library.string()) +
                         setting("out", fs::absolute(out).string()) + fmt::format("every={}:", options.every) +
                         fmt::format("max_rows={}:", options.max_rows);
  for (const std::string& pattern : options.layers) settings += setting("layers", pattern);
  if (options.stop_after) settings += fmt::format("stop_after={}:", *options.stop_after);
  if (options.snapshots) settings += "snapshots=1:";
  if (!list.empty()) settings += setting("list", list.string());
  settings.pop_back();
  ::setenv("DDS_ATTACH", settings.c_str(), 1);
  const char* others = std::getenv("LD_PRELOAD");
  const std::string object = preload_object().string();
  if (object.find_first_of(" :") != std::string::npos)
    throw InvalidArgument(fmt::format("attach: {} has a blank or a colon, at which the loader would cut it", object));
  const std::string objects = object + (others && *others ? fmt::format(":{}", others) : "");
  ::setenv("LD_PRELOAD", objects.c_str(), 1);
}

[[noreturn]] void execute(const std::vector<std::string>& command) {
  const std::vector<char*> words = argv_of(command);
  ::execvp(words.front(), words.data());
  throw IoError(fmt::format("attach: {}: {}", command.front(), std::strerror(errno)));
}

/// Runs the command as a child and ends as it does, with the layers printed before.
[[noreturn]] void list_layers(const Options& options) {
  std::string file = (fs::temp_directory_path() / "dds-attach-XXXXXX").string();
  if (const log::Descriptor made(::mkstemp(file.data())); made.get() < 0)
    throw IoError(fmt::format("attach: cannot write {}: {}", file, std::strerror(errno)));
  try {
    set_environment(options, file);
  } catch (...) {
    fs::remove(file);
    throw;
  }
  const pid_t child = ::fork();
  if (child < 0) throw IoError(fmt::format("attach: fork: {}", std::strerror(errno)));
  if (child == 0) {
    try {
      execute(options.command);
    } catch (const std::exception& error) {
      fmt::print(stderr, "dds: error: {}\n", error.what());
      std::_Exit(1);
    }
  }
  for (const int number : {SIGINT, SIGQUIT}) std::signal(number, SIG_IGN);  // the terminal sends them to the child too
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string lines = log::read_file(file);
  fs::remove(file);
  if (lines.empty()) {
    fmt::print("No layer was seen.\n");
  }
  std::string last;
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    const std::size_t tab = line.find('\t');
    if (const std::string layer = line.substr(0, tab); layer != last) fmt::print("{}\n", last = layer);
    fmt::print("    {}\n", line.substr(tab + 1));
  }
  std::fflush(stdout);
  if (WIFSIGNALED(status)) {
    std::signal(WTERMSIG(status), SIG_DFL);
    ::raise(WTERMSIG(status));
  }
  std::_Exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

void attach(const Options& options) {
  if (options.list) list_layers(options);
  set_environment(options, "");
  execute(options.command);
}

}  // namespace

void add_attach(CLI::App& program) {
  CLI::App* command = program.add_subcommand("attach", "Start a program that trains, and read its layers as it runs");
  command->footer(
      "Nothing of the program is changed, and its output, signals and exit code are its own: it is executed in place "
      "of\n"
      "this one, with an object before it (LD_PRELOAD) that finds layers, their names and the steps by itself. "
      "Programs in\n"
      "C++ and in Python, on a shared LibTorch 1.13 or newer. The log is that of a Monitor; its run.json says under\n"
      "'attach' what was decided. src/docs/attach.md tells what cannot be seen.\n\n"
      "Examples:\n"
      "  dds attach --out runs/a -- ./train --epochs 3\n"
      "  dds attach --every 10 --layers 'encoder.*' --out runs/b -- python3 train.py\n"
      "  dds attach --every 1000 --snapshots --out runs/c -- python3 train.py && dds llc runs/c\n"
      "  dds attach --list -- python3 train.py");
  const auto options = std::make_shared<Options>();
  command->add_option("COMMAND", options->command, "program and its arguments, after --")->required();
  command->add_option("--out", options->out, "run directory (default: dds-attach.PID)");
  command->add_option("--every", options->every, "read the steps whose number is a multiple of this")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--layers", options->layers, "read layers whose name matches; '*' any text, '?' one character")
      ->allow_extra_args(false);
  command
      ->add_option("--max-rows", options->max_rows,
                   "rows of one layer and side that go into a reading, and samples of a probe")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--stop-after", options->stop_after, "read no step after this one")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--torch", options->torch,
                      "LibTorch of the programs that COMMAND starts: a folder with lib/ in it");
  command->add_flag("--snapshots", options->snapshots,
                    "keep the parameters of the steps that are read, and in Python a probe batch and the network, in\n"
                    "snapshots/ of the run directory, for 'dds llc'");
  command->add_flag("--list", options->list,
                    "read nothing; print the layers of the first step when the command has ended");
  command->callback([options] { attach(*options); });
}

}  // namespace dds::tool
