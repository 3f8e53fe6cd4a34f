// What `dds attach` tells the plugin, in the environment variable DDS_ATTACH.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dds::attach {

/// Written as KEY=VALUE, separated by colons: "out=runs/a:every=100:layers=fc*:layers=conv1".
struct Settings {
  std::filesystem::path out;               ///< out: run directory; a process that finds it taken appends .PID
  std::int64_t every = 100;                ///< every: a step is due if its number is a multiple of this
  std::vector<std::string> layers;         ///< layers: glob patterns on names, one each; none: all
  std::int64_t max_rows = 65536;           ///< max_rows: as SignatureOptions::max_rows
  std::optional<std::int64_t> stop_after;  ///< stop_after: no later step is due
  bool snapshots = false;      ///< snapshots: 1: keep the parameters of the steps that are read, and a probe
  std::filesystem::path list;  ///< list: read nothing, and leave the layers that were seen in this file

  /// Throws InvalidArgument for a key that there is not, or a value that is none. `torch` and `plugin` are the preload
  /// object's (which LibTorch to wait for; which plugin to load) and passed over.
  static Settings parse(const std::string& text);
};

}  // namespace dds::attach
