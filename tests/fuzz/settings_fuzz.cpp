// What `dds attach` tells its plugin in an environment variable.
#include "src/attach/settings.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  try {
    const auto settings = attach::Settings::parse(std::string(fuzz::text(data, size)));
    fuzz::require(settings.every >= 1 && settings.max_rows >= 1, "numbers are in their ranges");
    fuzz::require(!settings.stop_after || *settings.stop_after >= 0, "and so is the last step");
  } catch (const InvalidArgument&) {
  }
  return 0;
}
