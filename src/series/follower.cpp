#include "src/series/follower.hpp"

#include <fmt/format.h>

#include <optional>

#include "src/base/logger.hpp"

namespace dds {

void Follower::add(Signature& signature) {
  fixed_ranks_.add(signature);
  decay_.add(signature);
  if (signature.axes.defined()) {
    if (const std::optional<DeadAxesChange> change = dead_axes_.add(signature)) {
      signature.born = change->born;
      signature.revived = change->revived;
    }
  }
  if (signature.status.empty()) return;
  const SeriesId series = series_of(signature);
  const std::string status = to_string(signature.status);
  if (!told_.emplace(series, status).second) return;
  log::tell(Level::Warning, fmt::format("{}, step {}: {}", to_string(series), signature.step, status));
}

void Follower::restart(FixedRanks fixed_ranks) {
  fixed_ranks_ = std::move(fixed_ranks);
  decay_ = DecayCounter(options_);
  dead_axes_ = DeadAxesTracker();
}

}  // namespace dds
