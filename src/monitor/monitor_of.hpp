// The private door to a monitor.
#pragma once

#include <dds/monitor.hpp>
#include <memory>

#include "hooks/layers.hpp"

namespace dds {

/// A monitor of parameters that need not be a model's of this program: those that `dds attach` finds. Its read()
/// throws. Throws what Monitor's constructor throws.
Monitor monitor_of(std::shared_ptr<hooks::ParameterSource> parameters, MonitorOptions options, log::SinkPtr sink);

}  // namespace dds
