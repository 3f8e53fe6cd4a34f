#include "src/log/counts.hpp"

#include <dds/report.hpp>

namespace dds {

std::vector<DecayCount> log::decay_counts(const Run& run, DecayOptions options) {
  DecayCounter counter(options);
  for (const Signature& signature : run.signatures) counter.add(signature);
  return counter.counts();
}

std::vector<DecayCount> decay_counts(const std::filesystem::path& run_directory, DecayOptions options) {
  return log::decay_counts(log::read_run(run_directory), options);
}

}  // namespace dds
