// What `dds attach` tells the plugin, in the environment variable DDS_ATTACH.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace dds::attach {

/// As text: KEY=VALUE, separated by colons: "out=runs/a:every=100:layers=fc*:layers=conv1". The keys are the members'
/// names. A colon within a value is written "\:", a backslash "\\".
struct Settings {
  std::filesystem::path out;               ///< run directory; a process that finds it taken appends .PID
  std::int64_t every = 100;                ///< a step is due if its number is a multiple of this
  std::vector<std::string> layers;         ///< glob patterns on names, one each; none: all
  std::int64_t max_rows = 65536;           ///< as SignatureOptions::max_rows
  std::optional<std::int64_t> stop_after;  ///< no later step is due
  bool snapshots = false;                  ///< 1: keep the parameters of the steps that are read, and a probe
  std::filesystem::path list;              ///< read nothing, and leave the layers that were seen in this file
  bool quiet = false;                      ///< 1: no account on the standard error
  std::int64_t process = 0;      ///< the command's own process, which accounts for its end if it trained nothing, too
  std::string version;           ///< for the preloaded object: of the LibTorch to wait for; empty: any
  std::filesystem::path torch;   ///< for the preloaded object: the LibTorch to wait for; empty: any
  std::filesystem::path plugin;  ///< for the preloaded object: the plugin to load; empty: the one beside it

  /// Throws InvalidArgument for an unknown key, or a value out of range.
  static Settings parse(const std::string& text);
  /// The text that parse() takes. What is empty or not set has no entry.
  std::string text() const;
};

}  // namespace dds::attach
