// The IDX files of a data set; zlib reads them compressed or plain.
#include "experiments/fashion_mnist/data.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  const auto files = fuzz::split(fuzz::text(data, size), fuzz::kBetweenFiles);
  fuzz::put(fuzz::folder() / "t10k-images-idx3-ubyte.gz", files[0]);
  fuzz::put(fuzz::folder() / "t10k-labels-idx1-ubyte.gz", files.size() > 1 ? files[1] : "");
  try {
    fashion_mnist::load(fuzz::folder(), "t10k");
  } catch (const Error&) {
  }
  return 0;
}
