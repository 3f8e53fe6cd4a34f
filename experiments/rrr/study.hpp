// Everything that was measured, and what is concluded from it.
#pragma once

#include <functional>

#include "experiments/harness/figures.hpp"
#include "experiments/harness/harness.hpp"
#include "experiments/rrr/estimates.hpp"
#include "experiments/rrr/readings.hpp"

namespace rrr {

using dds::experiments::Interval;

struct Study {
  std::vector<Estimate> estimates;
  std::vector<Reference> references;  ///< beside each estimate, at its gamma and n beta
  std::vector<Reading> readings;
  std::uint64_t seeds = 0;  ///< of the readings

  /// Indices of the estimates of one cell.
  std::vector<std::size_t> of(const Cell& cell, Loss loss) const;
};

/// lambda_hat of an estimate over the cell's closed form, or over its reference.
enum class Against { ClosedForm, Reference };

/// Means over seeds of such ratios, cell by cell. An estimate counts if it converged: what the estimator refuses is not
/// an estimate. Intervals (95 %) are Student's over a cell's seeds where those are ten or more, else what the estimates
/// themselves state: of noisy data the sampler's part alone.
struct Ratios {
  std::vector<Cell> cells;
  std::vector<std::optional<Interval>> by_cell;  ///< none: no estimate converged
  std::size_t present = 0;                       ///< cells that have one
  std::optional<Interval> mean;                  ///< over those
  std::optional<Interval> worst;                 ///< the largest |ratio - 1| of them

  bool complete() const { return present == cells.size(); }
};
Ratios ratios(const Study& study, const std::vector<Cell>& cells, Loss loss, Against against);

/// A rank correlation with lambda over the paper's cells.
struct Correlation {
  std::string observable, minimiser;
  Interval over_seeds;      ///< mean over seeds of the seeds' correlations
  Interval seed_averaged;   ///< correlation of the observable's mean over seeds
  Interval given_capacity;  ///< mean over seeds with H + r held fixed
};
/// Intervals: 95 %, bootstrap over seeds.
std::vector<Correlation> correlations(const Study& study);

/// Share of the 20 pairs of cells of one H whose log det+(G_h1) is in the order of lambda; bootstrap over seeds.
Interval hidden_layer_order(const Study& study, const std::string& minimiser);

std::vector<dds::experiments::Claim> claims(const Study& study, const dds::experiments::RunOptions& options);

/// Writes estimates.csv, cells.csv, readings.csv, correlations.csv and figures.html into the run's folder.
void present(const Study& study, const dds::experiments::RunOptions& options);

}  // namespace rrr
