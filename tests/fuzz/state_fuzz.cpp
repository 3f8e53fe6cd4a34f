// The state of a monitor in a checkpoint: what is taken is given back.
#include <torch/nn/modules/linear.h>

#include <dds/monitor.hpp>

#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  static torch::nn::Linear model(3, 2);
  static Monitor monitor(*model, MonitorOptions(), std::make_shared<log::Memory>());
  try {
    monitor.load_state(std::string(fuzz::text(data, size)));
    const std::string state = monitor.state();
    monitor.load_state(state);
    fuzz::require(monitor.state() == state, "the state is back");
    monitor.step().finish();
  } catch (const Error&) {
  }
  return 0;
}
