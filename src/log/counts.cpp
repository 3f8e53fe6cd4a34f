#include "src/log/counts.hpp"

#include <algorithm>
#include <dds/report.hpp>

#include "src/base/check.hpp"

namespace dds {

std::vector<DecayCount> log::decay_counts(const Run& run, DecayOptions options) {
  DecayCounter counter(options);
  for (const Signature& signature : run.signatures) counter.add(signature);
  return counter.counts();
}

std::vector<DecayCount> decay_counts(const std::filesystem::path& run_directory, DecayOptions options) {
  const log::Run run = log::read_run(run_directory);
  const bool spectra = std::any_of(run.signatures.begin(), run.signatures.end(),
                                   [](const Signature& signature) { return !signature.spectrum.empty(); });
  check(spectra || run.signatures.empty(), "decay_counts", "the number of readings with a spectrum", 0,
        "at least {} in each series of {}: log with SignatureOptions().spectra(true), or `dds read --spectra`",
        kMinDecayReadings, run_directory.string());
  return log::decay_counts(run, options);
}

}  // namespace dds
