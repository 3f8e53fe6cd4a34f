// In place of what the fuzzer of command lines is built without.
#include <dds/error.hpp>

#include "src/llc/stage.hpp"
#include "src/tool/command.hpp"
#include "src/tool/executable.hpp"
#include "src/tool/plugin.hpp"

// Verdicts are read here and none is made, for which the sampler would have to be compiled too.
bool dds::distance_is_stationary(const std::optional<double>&, const std::optional<double>&) { return false; }
std::string_view dds::to_string(Sampler) { return ""; }

namespace dds::tool {

void add_read(CLI::App&) {}
void add_llc(CLI::App&) {}

Torch torch_at(const std::filesystem::path&) { return {"libtorch_cpu.so", "2.15.0"}; }
Torch torch_of(const std::vector<std::string>&) { return torch_at(""); }
std::filesystem::path plugin_for(const Torch&) { return "plugin.so"; }
/// The last that is asked for before a program is run.
std::filesystem::path preload_object() { throw IoError("nothing is run here"); }

}  // namespace dds::tool
