// Monitors that the public class has no constructor for.
#pragma once

#include <dds/monitor.hpp>
#include <memory>

namespace dds {

namespace hooks {
class ParameterSource;
}

class MonitorFactory {
 public:
  /// A monitor of parameters that no model of this program has registered (`dds attach`). Its read() throws.
  static Monitor of_parameters(std::shared_ptr<hooks::ParameterSource> parameters, MonitorOptions options,
                               log::SinkPtr sink);
};

}  // namespace dds
