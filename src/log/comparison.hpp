// DDS against LLC: for every layer, the readings at the checkpoints whose LLC is known, and their rank correlations.
#pragma once

#include <dds/correlation.hpp>
#include <dds/run.hpp>
#include <optional>
#include <string>
#include <vector>

namespace dds::log {

/// A reading that is set against the LLC.
struct Measure {
  std::string_view key;    ///< for the page
  std::string_view label;  ///< with its unit
  Side side;
  std::optional<double> (*value)(const Signature&);
};

const std::vector<Measure>& measures();

/// One layer, one measure, one kind of LLC.
struct Comparison {
  std::string layer;
  const Measure* measure = nullptr;
  LlcKind kind = LlcKind::Plain;

  struct Pair {
    std::int64_t step = 0;
    double reading = 0;
    bool at_floor = false;
    const LlcEstimate* estimate = nullptr;
  };
  std::vector<Pair> pairs;  ///< checkpoint reads (source "read") with an LLC of a finite value, in order of step

  RankCorrelation raw;        ///< over the pairs whose LLC is converged
  RankCorrelation detrended;  ///< the same with the order of steps held fixed
};

/// All layers, measures and kinds of which there is at least one pair, in order of the layers' first appearance. The
/// pointers reach into `run`.
std::vector<Comparison> compare(const Run& run);

}  // namespace dds::log
