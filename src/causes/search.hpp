// The search for the causes of one reading, and the readings beside it.
#pragma once

#include <cstdint>
#include <dds/causes.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "src/causes/dead_span.hpp"
#include "src/causes/find.hpp"

namespace dds {

/// All readings, by layer and side.
class ReadingIndex {
 public:
  explicit ReadingIndex(const std::vector<CauseEvidence>& readings) {
    for (const CauseEvidence& reading : readings) {
      readings_.emplace(std::pair{reading.layer->layer(), reading.signature->side}, &reading);
    }
  }
  /// Null: there is none with numbers.
  const CauseEvidence* find(const std::string& layer, Side side) const {
    const auto known = readings_.find({layer, side});
    return known == readings_.end() ? nullptr : known->second;
  }

 private:
  std::map<std::pair<std::string, Side>, const CauseEvidence*> readings_;
};

/// The search within one reading, at what is left after the causes before.
struct CauseSearch {
  const CauseEvidence& reading;
  const ReadingIndex& all;
  DeadSpan span;
  std::int64_t dead;                         ///< width - rank
  std::int64_t by_architecture;              ///< of `dead`
  std::int64_t left;                         ///< dead, not by architecture, and without a cause so far
  std::vector<std::int64_t> silent = {};     ///< columns that are dead without a cause
  std::vector<std::int64_t> constants = {};  ///< units that are the same in every row, and not zero
  std::vector<Cause> causes = {};

  const Surroundings& around() const { return reading.layer->around(); }
  Side side() const { return reading.signature->side; }
  /// The ranges of the units of this side's layer, as its output has them; undefined: not known.
  UnitRanges output_ranges() const { return reading.layer->side(Side::Activation).ranges; }

  void explain(Cause cause) {
    left -= cause.directions;
    causes.push_back(std::move(cause));
  }
};

// Each explains what it can.

/// Directions that the operators around the layer leave out whatever the weights are. Lowers the bound where it does
/// not know of them.
void find_kernels(CauseSearch& search);
/// Units that are off, zero, constant, without weights or without gradient.
void find_units(CauseSearch& search);
/// Columns that are equal or opposite to one before them: to which, and the sign.
struct Twin {
  std::int64_t unit, of;
  double sign;
};
/// Of all columns that are not dead themselves.
std::vector<Twin> twins_of(const DeadSpan& span);
/// The dead subspace of a reading, with nothing taken.
DeadSpan span_of(const CauseEvidence& reading);

/// Units that are equal or opposite.
void find_duplicates(CauseSearch& search);
/// Units that are combinations of few others.
void find_combinations(CauseSearch& search);
/// Ranks that were lost in the layer before or behind, or in between for want of weights.
void find_lost_ranks(CauseSearch& search);

// What functions between layers do to a unit.

/// True for a function that gives 0 for everything at or below 0.
bool is_relu(const std::string& function);
/// True for a function of each entry by itself and of nothing else.
bool is_entrywise(const std::string& function);
/// The largest slope of the function over [low, high], or more; 1 where it is not known.
double largest_slope(const std::string& function, double low, double high);

}  // namespace dds
