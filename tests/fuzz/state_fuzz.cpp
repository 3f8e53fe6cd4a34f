// The state of a monitor in a checkpoint: what is taken is given back.
#include "src/monitor/saved_state.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  try {
    const std::string state = text_of(saved_state(std::string(fuzz::text(data, size))));
    fuzz::require(text_of(saved_state(state)) == state, "the state is back");
  } catch (const Error&) {
  }
  return 0;
}
