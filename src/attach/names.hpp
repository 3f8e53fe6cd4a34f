// Names on which the launcher (`dds attach`), the preloaded object, the plugin and `dds llc` agree. Constants alone:
// the preloaded object links nothing but the C library.
#pragma once

namespace dds::attach {

/// The environment variable that carries the settings: KEY=VALUE, separated by kSeparator. Within a value kEscape
/// stands before a separator, and before itself.
inline constexpr const char* kVariable = "DDS_ATTACH";
inline constexpr char kSeparator = ':';
inline constexpr char kEscape = '\\';

/// Keys of the settings (settings.hpp tells what they mean).
namespace key {
inline constexpr const char* kOut = "out";
inline constexpr const char* kEvery = "every";
inline constexpr const char* kLayers = "layers";
inline constexpr const char* kMaxRows = "max_rows";
inline constexpr const char* kStopAfter = "stop_after";
inline constexpr const char* kSnapshots = "snapshots";
inline constexpr const char* kQuiet = "quiet";
inline constexpr const char* kProcess = "process";
inline constexpr const char* kList = "list";
inline constexpr const char* kTorch = "torch";
inline constexpr const char* kVersion = "version";
inline constexpr const char* kPlugin = "plugin";
}  // namespace key

/// Shared objects.
inline constexpr const char* kPreloadObject = "libdds_preload.so";
inline constexpr const char* kPluginObject = "libdds_attach.so";
inline constexpr const char* kTorchLibrary = "libtorch_cpu.so";
inline constexpr const char* kTorchPythonLibrary = "libtorch_python.so";

/// Files of a run: OUT/snapshots/STEP.pt, probe.pt and model.pt.
inline constexpr const char* kSnapshotFolder = "snapshots";
inline constexpr const char* kTensorFile = ".pt";
inline constexpr const char* kProbeFile = "probe.pt";
inline constexpr const char* kModelFile = "model.pt";

/// What run.json says: {"attach": {"snapshots": {"likelihood": ...}}}.
inline constexpr const char* kDescription = "attach";
inline constexpr const char* kSnapshotDescription = "snapshots";
inline constexpr const char* kLikelihood = "likelihood";

}  // namespace dds::attach
