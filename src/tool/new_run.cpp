#include "src/tool/new_run.hpp"

#include <fmt/format.h>

#include "src/base/check.hpp"
#include "src/log/file.hpp"

namespace dds::tool {

void check_new_run(const char* command, const std::filesystem::path& out) {
  if (!log::is_there(out)) return;
  check(std::filesystem::is_directory(out), command, "--out", out.string(), "a folder");
  if (const std::string entry = log::first_entry(out); !entry.empty()) {
    throw_invalid(command, "--out", value_text(out.string()),
                  fmt::format("an empty folder, or one that is not there yet (this one holds {})", entry));
  }
}

}  // namespace dds::tool
