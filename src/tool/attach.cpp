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
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "src/attach/names.hpp"
#include "src/attach/settings.hpp"
#include "src/base/check.hpp"
#include "src/log/file.hpp"
#include "src/tool/command.hpp"
#include "src/tool/executable.hpp"
#include "src/tool/new_run.hpp"
#include "src/tool/plugin.hpp"
#include "src/tool/streams.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

struct AttachArguments {
  std::vector<std::string> command;
  attach::Settings settings;
  std::string torch;  ///< folder or library; empty: that of the command
  bool list = false;
};

/// Which LibTorch, and the plugin for it. Where the command's own program loads none, each process that it starts and
/// that loads one of the version that this tool's own plugin is for is attached to.
void choose_plugin(const AttachArguments& options, attach::Settings& settings) {
  try {
    const Torch torch = options.torch.empty() ? torch_of(options.command) : torch_at(options.torch);
    settings.torch = torch.library;
    settings.plugin = plugin_for(torch);
  } catch (const LoadsNoTorch&) {
    settings.version = own_version();
    settings.plugin = own_plugin();
  }
}

/// `list`: file for the layers; empty: they are read.
void set_environment(const AttachArguments& options, const fs::path& list) {
  attach::Settings settings = options.settings;
  choose_plugin(options, settings);
  if (settings.out.empty()) settings.out = fmt::format("dds-attach.{}", ::getpid());
  check_new_run("attach", settings.out);
  settings.out = fs::absolute(settings.out);
  settings.list = list;
  settings.process = ::getpid();
  ::setenv(attach::kVariable, settings.text().c_str(), 1);

  const std::string object = preload_object().string();
  check(object.find_first_of(" :") == std::string::npos, "attach", "the preloaded object", object,
        "a path without blanks and colons, at which the loader would cut it");
  const char* others = std::getenv("LD_PRELOAD");
  const std::string objects = others && *others ? fmt::format("{}:{}", object, others) : object;
  ::setenv("LD_PRELOAD", objects.c_str(), 1);
}

[[noreturn]] void execute(const std::vector<std::string>& command) {
  const std::vector<char*> words = argv_of(command);
  ::execvp(words.front(), words.data());
  throw NotRunnable(fmt::format("attach: {}: {}", command.front(), std::strerror(errno)), errno != ENOENT);
}

/// Ends this process as a process with this status ended.
[[noreturn]] void end_as(int status) {
  if (WIFSIGNALED(status)) {
    std::signal(WTERMSIG(status), SIG_DFL);
    ::raise(WTERMSIG(status));
  }
  std::_Exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/// Runs the command as a child, and returns its status.
int status_of(const std::vector<std::string>& command) {
  const pid_t child = ::fork();
  if (child < 0) throw IoError(fmt::format("attach: fork: {}", std::strerror(errno)));
  if (child == 0) {
    try {
      execute(command);
    } catch (const NotRunnable& error) {
      complain(fmt::format("dds: error: {}\n", error.what()));
      std::_Exit(error.exit_code);
    }
  }
  for (const int number : {SIGINT, SIGQUIT}) std::signal(number, SIG_IGN);  // the terminal sends them to the child too
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

/// The plugin's lines LAYER<tab>USE, each layer once with its uses below.
void print_layers(const std::string& lines) {
  if (lines.empty()) fmt::print("No layer was seen.\n");
  std::string last;
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    const std::size_t tab = line.find('\t');
    if (const std::string layer = line.substr(0, tab); layer != last) fmt::print("{}\n", last = layer);
    fmt::print("    {}\n", line.substr(tab + 1));
  }
  flush_output();
}

/// Runs the command as a child and ends as it does, with the layers printed before.
[[noreturn]] void list_layers(const AttachArguments& options) {
  std::string file = (fs::temp_directory_path() / "dds-attach-XXXXXX").string();
  if (const log::Descriptor made(::mkstemp(file.data())); made.get() < 0)
    throw IoError(fmt::format("attach: cannot write {}: {}", file, std::strerror(errno)));
  try {
    set_environment(options, file);
  } catch (...) {
    fs::remove(file);
    throw;
  }
  const int status = status_of(options.command);
  const std::string lines = log::read_file(file);
  fs::remove(file);
  try {
    print_layers(lines);
  } catch (const std::exception& error) {
    if (status == 0) throw;
    complain(fmt::format("dds: error: {}\n", error.what()));  // the exit code is that of the command, which failed too
  }
  end_as(status);
}

void attach(const AttachArguments& options) {
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
  const auto options = std::make_shared<AttachArguments>();
  command->add_option("COMMAND", options->command, "program and its arguments, after --")->required();
  command->add_option("--out", options->settings.out, "run directory (default: dds-attach.PID)");
  command->add_option("--every", options->settings.every, "read the steps whose number is a multiple of this")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--layers", options->settings.layers,
                   "read layers whose name matches; '*' any text, '?' one character")
      ->allow_extra_args(false);
  command
      ->add_option("--max-rows", options->settings.max_rows,
                   "rows of one layer and side that go into a reading, and samples of a probe")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--stop-after", options->settings.stop_after, "read no step after this one")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--torch", options->torch,
                      "LibTorch of the programs that COMMAND starts: a folder with lib/ in it");
  command->add_flag("--snapshots", options->settings.snapshots,
                    "keep the parameters of the steps that are read, and in Python a probe batch and the network, in\n"
                    "snapshots/ of the run directory, for 'dds llc'");
  command->add_flag("--quiet", options->settings.quiet, "no line on the standard error at the end");
  command->add_flag("--list", options->list,
                    "read nothing; print the layers of the first step when the command has ended");
  command->callback([options] { attach(*options); });
}

}  // namespace dds::tool
