// The command-line tool `dds`: what the library says of models on disk and of the logs of runs. `dds attach` is a
// program of its own (launcher.cpp), which executes this one for all other commands.
#include <c10/util/Exception.h>

#include "src/tool/command.hpp"
#include "src/tool/entry.hpp"
#include "src/tool/streams.hpp"

namespace dds::tool {
namespace {

void add_all(CLI::App& program) {
  add_attach(program);
  add_read(program);
  add_llc(program);
  add_report(program);
  add_compare(program);
  add_watch(program);
  add_lambda(program);
  add_export(program);
}

std::string message_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch ? of_torch->what_without_backtrace() : error.what();
}

}  // namespace
}  // namespace dds::tool

int main(int argc, char** argv) {
  dds::tool::hold_standard_streams();
  return dds::tool::enter(argc, argv, dds::tool::add_all, dds::tool::message_of);
}
