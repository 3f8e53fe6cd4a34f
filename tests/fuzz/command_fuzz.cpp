// Command lines of `dds`, an argument a line, in a folder with three runs. The command's own main catches what is
// thrown: it must end with one of its exit codes. `dds read` and `dds llc` are left out, whose files are LibTorch's to
#include <dds/run.hpp>
// read, and of `dds attach` what looks at a program and runs it.
#include <fmt/format.h>

#include "src/tool/command.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/fuzz/samples.hpp"

int dds_main(int argc, char** argv);

namespace {

namespace fs = std::filesystem;

const fs::path& workplace() {
  static const fs::path path = [] {
    const fs::path made = dds::fuzz::folder() / "work";
    fs::create_directories(made);
    ::setenv("PATH", "", 1);  // no gnuplot
    dds::fuzz::write_run(made / "a", 1);
    dds::fuzz::write_run(made / "b", 2);
    dds::fuzz::write_run(made / "c", dds::fuzz::kExtremes);
    fs::current_path(made);
    return made;
  }();
  return path;
}

/// Takes away what a command has written.
void tidy() {
  const auto known = [](const fs::path& entry) {
    const std::string name = entry.filename().string();
    return name == "a" || name == "b" || name == "c";
  };
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(workplace())) {
    if (!known(entry.path())) others.push_back(entry.path());
  }
  for (const char* run : {"a", "b", "c"}) others.push_back(workplace() / run / "report.html");
  for (const fs::path& other : others) fs::remove_all(other);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  workplace();
  std::vector<std::string> arguments = {"dds"};
  for (const std::string_view line : fuzz::split(fuzz::text(data, size), '\n')) {
    // It must not write elsewhere.
    if (line.find('/') != line.npos || line.find("..") != line.npos || line.find('\0') != line.npos) return 0;
    if (line.starts_with("--out") || line.starts_with("--figures")) {
      arguments.emplace_back(line.substr(0, line.find('=')));
      arguments.emplace_back("out");
      continue;
    }
    arguments.emplace_back(line);
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  const int code = dds_main(static_cast<int>(argv.size()), argv.data());
  fuzz::require((code >= 0 && code <= 2) || code == 126 || code == 127, "the exit code is 0, 1, 2 or that of a shell");
  tidy();
  return 0;
}
