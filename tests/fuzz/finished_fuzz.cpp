// The finished pieces of an experiment.
#include "experiments/harness/finished.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  static const experiments::RunOptions options = [] {
    experiments::RunOptions made;
    made.experiment = "fuzzed";
    made.out = fuzz::folder() / "finished";
    std::filesystem::create_directories(made.out);
    return made;
  }();
  fuzz::put(options.out / "finished.jsonl", fuzz::text(data, size));
  try {
    std::size_t pieces = 0;
    {
      experiments::Finished finished(options);
      pieces = finished.taken_over();
      finished.piece("a name that no piece has", [] { return nlohmann::json(1); });
    }
    fuzz::require(experiments::Finished(options).taken_over() == pieces + 1, "the piece that was added is there");
  } catch (const Error&) {
  }
  return 0;
}
