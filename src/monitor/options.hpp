// The library's side of MonitorOptions.
#pragma once

#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <string>
#include <vector>

namespace dds {

/// Throws InvalidArgument for options out of range.
void check(const MonitorOptions& options);

RecorderOptions recorder_options(const MonitorOptions& options);

/// The description of the run under the key "monitor", as JSON.
/// `model`: its class. `parameters`: identity_of them.
std::string description_of(const MonitorOptions& options, const std::string& model, const std::string& parameters,
                           const std::vector<std::string>& layers);

}  // namespace dds
