#include "src/tool/entry.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <system_error>

#include "src/tool/executable.hpp"
#include "src/tool/streams.hpp"
#include "src/tool/text.hpp"

namespace dds::tool {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2 };

int fail(const std::string& message, int code) {
  complain(fmt::format("dds: error: {}\n", printable(one_line(message))));
  return code;
}

/// Throws what went wrong.
ExitCode obey(CLI::App& program, int argc, char** argv) {
  try {
    program.parse(argc, argv);
    if (program.get_subcommands().empty()) throw CLI::ParseError("a command is missing", kUsage);
  } catch (const CLI::Success& asked_for_help) {
    program.exit(asked_for_help);
  }
  flush_output();
  return kDone;
}

}  // namespace

int enter(int argc, char** argv, const std::function<void(CLI::App&)>& add,
          const std::function<std::string(const std::exception&)>& message_of) {
  CLI::App program("Reads how singular a network is, and looks at the logs of runs.", "dds");
  program.set_version_flag("--version", DDS_VERSION);
  program.require_subcommand(0, 1);  // none at all is told apart below from one that there is not
  program.footer(
      "'dds COMMAND --help' tells the rest, with examples.\n\n"
      "Exit codes: 0 done; 1 could not be done, for the reason that one line on the standard error gives; 2 the "
      "command\n"
      "line makes no sense. 'dds attach' ends as its command does, with 127 where there is no such command and 126 "
      "where\n"
      "it is no program.");
  add(program);
  try {
    return obey(program, argc, argv);
  } catch (const CLI::ParseError& error) {
    return fail(fmt::format("{} (see dds --help)", error.what()), kUsage);
  } catch (const NotRunnable& error) {
    return fail(error.what(), error.exit_code);
  } catch (const std::system_error& error) {
    const bool of_output = std::ferror(stdout) != 0;
    return fail(of_output ? "cannot write to the standard output: " + error.code().message() : error.what(), kFailed);
  } catch (const std::exception& error) {
    return fail(message_of(error), kFailed);
  }
}

}  // namespace dds::tool
