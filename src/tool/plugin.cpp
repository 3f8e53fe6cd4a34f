#include "src/tool/plugin.hpp"

#include <fmt/format.h>
#include <torch/version.h>

#include <cstdlib>
#include <dds/error.hpp>
#include <functional>
#include <string>

#include "src/attach/names.hpp"
#include "src/log/file.hpp"
#include "src/tool/streams.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

/// Where this tool's own objects lie: beside it in the build tree, below the prefix once installed.
fs::path own_folder() {
  const fs::path here = fs::canonical("/proc/self/exe").parent_path();
  for (const char* folder : {"../attach", DDS_ATTACH_INSTALLED}) {
    if (fs::exists(here / folder / attach::kPreloadObject)) return fs::canonical(here / folder);
  }
  throw IoError(
      fmt::format("attach: {} is neither beside {} nor where it is installed", attach::kPreloadObject, here.string()));
}

fs::path cache() {
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder && *folder) return fs::path(folder) / "dds";
  if (const char* home = std::getenv("HOME"); home && *home) return fs::path(home) / ".cache/dds";
  throw IoError("attach: neither XDG_CACHE_HOME nor HOME is set, so there is no folder to keep a plugin in");
}

/// True if a source is younger than the plugin.
bool outdated(const fs::path& plugin, const fs::path& sources) {
  const auto built = fs::last_write_time(plugin);
  for (const char* folder : {"include", "src", "hooks"}) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(sources / folder)) {
      if (entry.is_regular_file() && entry.last_write_time() > built) return true;
    }
  }
  return false;
}

/// Where CMake is to look for this LibTorch: by its folder where headers and libraries lie together.
std::string location_of(const Torch& torch) {
  const fs::path lib = torch.library.parent_path(), root = lib.parent_path();
  if (fs::exists(root / "include/torch") && fs::exists(root / "lib" / attach::kTorchLibrary)) {
    return "-DDDS_TORCH_ROOT=" + root.string();
  }
  return "-DTorch_DIR=" + (lib / "cmake/Torch").string();
}

}  // namespace

fs::path preload_object() { return own_folder() / attach::kPreloadObject; }

fs::path own_plugin() { return own_folder() / attach::kPluginObject; }

std::string own_version() {
  return fmt::format("{}.{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH);
}

fs::path plugin_for(const Torch& torch) {
  if (torch.version == own_version() && fs::exists(own_plugin())) return own_plugin();
  const fs::path sources = DDS_SOURCE_DIR;
  const std::size_t place = std::hash<std::string>()(torch.library.string() + sources.string());
  const fs::path folder = cache() / "attach" / fmt::format("{}-{:016x}", torch.version, place);
  const fs::path plugin = folder / "src/attach" / attach::kPluginObject;
  const bool buildable = fs::exists(sources / "src/attach/CMakeLists.txt");
  if (fs::exists(plugin) && (!buildable || !outdated(plugin, sources))) return plugin;
  if (!buildable) {
    throw IoError(
        fmt::format("attach: there is no plugin for LibTorch {} ({}), and {}, the source tree that this tool was "
                    "built from, is gone: build dds with that LibTorch",
                    torch.version, torch.library.string(), sources.string()));
  }
  fs::create_directories(folder);
  const log::Lock lock(folder, log::Lock::WhenHeld::Wait);  // held by another that builds the same
  if (fs::exists(plugin) && !outdated(plugin, sources)) return plugin;
  complain(
      fmt::format("dds: attach: building the plugin for LibTorch {}, once, into {}\n", torch.version, folder.string()));
  const Output configured =
      output_of({"cmake", "-S", sources.string(), "-B", folder.string(), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 "-DDDS_BUILD_TESTS=OFF", "-DDDS_BUILD_EXPERIMENTS=OFF", "-DDDS_CUDA=OFF", location_of(torch),
                 std::string("-DDDS_PLOTLY_JS=") + DDS_PLOTLY_JS});
  const Output built =
      configured.success ? output_of({"cmake", "--build", folder.string(), "--target", "dds_attach", "--parallel", "2"})
                         : Output();
  if (built.success && fs::exists(plugin)) {
    fs::last_write_time(plugin, fs::file_time_type::clock::now());  // it may have needed no build
    return plugin;
  }
  log::replace_file(folder / "build.log", configured.text + built.text);
  throw IoError(fmt::format("attach: the plugin for LibTorch {} could not be built; what CMake said is in {}",
                            torch.version, (folder / "build.log").string()));
}

}  // namespace dds::tool
