// The subcommands of `dds`, one a file: each adds itself, its options and its help to the program.
//
// A subcommand prints what was asked for on the standard output and throws what went wrong; `main` turns that into one
// line on the standard error and an exit code.
#pragma once

#include <CLI/CLI.hpp>

namespace dds::tool {

void add_attach(CLI::App& program);
void add_read(CLI::App& program);
void add_llc(CLI::App& program);
void add_report(CLI::App& program);
void add_compare(CLI::App& program);
void add_watch(CLI::App& program);
void add_lambda(CLI::App& program);
void add_export(CLI::App& program);

}  // namespace dds::tool
