// The sink for TensorBoard of a run that goes on.
#pragma once

#include <dds/log.hpp>
#include <filesystem>

namespace dds::log {

/// As `tensorboard`, but of the rows that are written first to last those whose events the folder's files hold already
/// are passed over: given all rows of a run, it adds the events that are missing.
SinkPtr resumed_tensorboard(const std::filesystem::path& path);

}  // namespace dds::log
