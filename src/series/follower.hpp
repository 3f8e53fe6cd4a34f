// All that is followed over the readings of a run.
#pragma once

#include <dds/dead_axes_tracker.hpp>
#include <dds/decay.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "src/series/fixed_ranks.hpp"

namespace dds {

class Follower {
 public:
  explicit Follower(const DecayOptions& options) : options_(options), decay_(options) {}

  /// Takes a reading in, and fills in what it says beside the earlier ones (Signature::born, Signature::revived). It
  /// must have its spectrum. A status that the series did not have before goes to the logger.
  void add(Signature& signature);
  /// Begins anew, with the fixed ranks of an earlier run.
  void restart(FixedRanks fixed_ranks);

  const FixedRanks& fixed_ranks() const { return fixed_ranks_; }
  std::vector<DecayCount> decay_counts() const { return decay_.counts(); }

 private:
  DecayOptions options_;
  FixedRanks fixed_ranks_;
  DecayCounter decay_;
  DeadAxesTracker dead_axes_;
  std::set<std::pair<SeriesId, std::string>> told_;  ///< statuses that the logger knows of
};

}  // namespace dds
