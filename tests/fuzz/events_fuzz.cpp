// Event files: what is read of one is what its beginning was written from; and a folder of them is gone on with.
#include "src/log/event_file.hpp"
#include "src/log/tensorboard.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  const std::string_view file = fuzz::text(data, size);
  std::string written;
  for (const std::string_view payload : log::tf_payloads(file)) written += log::tf_record(payload);
  fuzz::require(file.starts_with(written), "the records are those of the file");

  static const std::filesystem::path folder = fuzz::folder() / "events";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  // A damaged checksum stops the reader early: the fuzzer's bytes are also a payload with a right one.
  fuzz::put(folder / "events.out.tfevents.0000000001.a", file);
  fuzz::put(folder / ("events.out.tfevents." + std::to_string(size)), log::tf_record(file));
  log::resumed_tensorboard(folder)->write(Metric{1, "loss", 0.5});
  return 0;
}
