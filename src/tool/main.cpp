// The command-line tool `dds`: what the library says of models on disk and of the logs of runs.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "src/tool/command.hpp"
#include "src/tool/table.hpp"

namespace dds::tool {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2 };

/// LibTorch's messages go over many lines: of those of the TorchScript interpreter the last says what is wrong, of the
/// others the first.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::size_t last = text.rfind('\n') + 1;
  if (text.substr(last).starts_with("RuntimeError: ")) return text.substr(last);
  return text.substr(0, text.find('\n'));
}

int fail(const std::string& message, ExitCode code) {
  fmt::print(stderr, "dds: error: {}\n", printable(one_line(message)));
  return code;
}

int run(int argc, char** argv) {
  CLI::App program("Reads how singular a network is, and looks at the logs of runs.", "dds");
  program.set_version_flag("--version", DDS_VERSION);
  program.require_subcommand(0, 1);  // none at all is told apart below from one that there is not
  program.footer(
      "'dds COMMAND --help' tells the rest, with examples.\n\n"
      "Exit codes: 0 done; 1 could not be done, for the reason that one line on the standard error gives; 2 the "
      "command\n"
      "line makes no sense.");
  add_attach(program);
  add_read(program);
  add_llc(program);
  add_report(program);
  add_compare(program);
  add_watch(program);
  add_lambda(program);
  add_export(program);
  try {
    program.parse(argc, argv);
    return program.get_subcommands().empty() ? fail("a command is missing (see dds --help)", kUsage) : kDone;
  } catch (const CLI::Success& asked_for_help) {
    return program.exit(asked_for_help);
  } catch (const CLI::ParseError& error) {
    return fail(fmt::format("{} (see dds --help)", error.what()), kUsage);
  } catch (const c10::Error& error) {
    return fail(error.what_without_backtrace(), kFailed);
  } catch (const std::exception& error) {
    return fail(error.what(), kFailed);
  }
}

}  // namespace
}  // namespace dds::tool

int main(int argc, char** argv) { return dds::tool::run(argc, argv); }
