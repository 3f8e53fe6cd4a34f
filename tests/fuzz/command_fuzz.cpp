// Command lines of `dds`, an argument a line, in a folder with two runs. The command's own main catches what is thrown:
<<<<<<< HEAD
// it must end with one of its exit codes. `dds read` is left out, whose files are LibTorch's to read, and of `dds
// attach` what looks at a program and runs it.
=======
// it must end with one of its exit codes. `dds read` and `dds llc` are left out, whose files are LibTorch's to read.
>>>>>>> llc_outside
#include <fmt/format.h>

#include "src/llc/stage.hpp"
#include "src/log/run.hpp"
#include "src/tool/command.hpp"
#include "src/tool/executable.hpp"
#include "src/tool/plugin.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/fuzz/samples.hpp"

<<<<<<< HEAD
// Verdicts are read here and none is made, for which the sampler would have to be compiled too.
bool dds::distance_is_stationary(const std::optional<double>&, const std::optional<double>&) { return false; }
std::string_view dds::to_string(Sampler) { return ""; }

namespace dds::tool {

void add_read(CLI::App&) {}

Torch torch_at(const std::filesystem::path&) { return {"libtorch_cpu.so", "2.15.0"}; }
Torch torch_of(const std::vector<std::string>&) { return torch_at(""); }
std::filesystem::path plugin_for(const Torch&) { return "plugin.so"; }
/// The last that is asked for before a program is run.
std::filesystem::path preload_object() { throw IoError("nothing is run here"); }

}  // namespace dds::tool
=======
void dds::tool::add_read(CLI::App&) {}
void dds::tool::add_llc(CLI::App&) {}
>>>>>>> llc_outside

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
    fs::current_path(made);
    return made;
  }();
  return path;
}

/// Takes away what a command has written.
void tidy() {
  const auto known = [](const fs::path& entry) {
    const std::string name = entry.filename().string();
    return name == "a" || name == "b";
  };
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(workplace())) {
    if (!known(entry.path())) others.push_back(entry.path());
  }
  for (const char* run : {"a", "b"}) others.push_back(workplace() / run / "report.html");
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
  fuzz::require(code >= 0 && code <= 2, "the exit code is 0, 1 or 2");
  tidy();
  return 0;
}
