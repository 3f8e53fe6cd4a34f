// A run directory: read, looked at as the report does, resumed and written to. A run that can be resumed keeps its
// rows.
#include "src/log/comparison.hpp"
#include "src/log/counts.hpp"
#include "src/log/findings.hpp"
#include "src/log/run_files.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  static const std::filesystem::path run = fuzz::folder() / "run";
  std::filesystem::remove_all(run);
  std::filesystem::create_directories(run);
  const auto files = fuzz::split(fuzz::text(data, size), fuzz::kBetweenFiles);
  const std::string_view names[] = {log::kRunJson, log::kSignaturesCsv, log::kSpectraJsonl, log::kLlcCsv,
                                    log::kMetricsCsv};
  for (std::size_t i = 0; i < std::min(files.size(), std::size(names)); ++i) fuzz::put(run / names[i], files[i]);
  try {
    const log::Run read = log::read_run(run);
    log::findings(read, log::compare(read), log::decay_counts(read, {}));
  } catch (const Error&) {
  }
  try {
    const log::SinkPtr sink = log::directory(run, {.resume = true, .tensorboard = true});
    const log::Run before = log::read_run(run);
    sink->write(Metric{-1, "a name that no run has", 0.5});
    fuzz::require(log::read_run(run).metrics.size() == before.metrics.size() + 1, "the row that was added is there");
    const log::Run after = log::read_run(run);
    for (std::size_t i = 0; i < before.signatures.size(); ++i) {
      fuzz::require(after.signatures[i].spectrum.size() == before.signatures[i].spectrum.size(),
                    "the rows keep their spectra");
    }
  } catch (const Error&) {
  }
  return 0;
}
