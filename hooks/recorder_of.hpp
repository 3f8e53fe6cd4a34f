// The private door to a recorder.
#pragma once

#include <dds/recorder.hpp>
#include <memory>

#include "hooks/layers.hpp"

namespace dds::hooks {

/// A recorder of parameters that need not be a model's of this program: those that `dds attach` finds.
/// Throws what Recorder's constructor throws.
Recorder recorder_of(std::shared_ptr<ParameterSource> parameters, RecorderOptions options);

}  // namespace dds::hooks
