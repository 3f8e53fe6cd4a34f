// Everything that was measured, and what is concluded from it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "experiments/harness/harness.hpp"
#include "experiments/modular_addition/llc.hpp"

namespace modular_addition {

struct Study {
  std::vector<Training> trainings;
  std::vector<LlcTask> tasks;
  std::vector<LlcResult> estimates;  ///< beside each task
  Cell followed;                     ///< whose weights were kept on the way, first seed
  std::vector<Followed> on_the_way;  ///< of that width, one a seed

  std::vector<std::uint64_t> seeds() const;  ///< ascending
  const Training& of(const Cell& cell) const;
};

using dds::experiments::Interval;

// ---- what separates the widths ----

/// A number of one checkpoint, as log10.
struct Observable {
  std::string key;    ///< in ids of claims: "lambda_min_mid"
  std::string title;  ///< "lambda_min+(G) at resid_mid"
  std::function<double(const Checkpoint&)> log10;
};
/// The four readings of the trial (src/docs/the_method.md, Modular addition), in its order.
const std::vector<Observable>& table_observables();
/// lambda_k(G) / tr(G) at resid_mid with k = min(d, p - 1): at most as many directions as the read-out can tell apart.
Observable rank_capped(const Arm& arm);
/// The table's and that one.
std::vector<Observable> observables(const Arm& arm);
/// lambda_min+(G) at resid_mid where eigenvalues below `tolerance` times the largest do not count.
Observable with_tolerance(double tolerance);

/// Where a column of the table is read.
struct Column {
  std::string key;         ///< "init", "matched", "end" or "end_fitted"
  std::string checkpoint;  ///< "init", "matched" or "end"
  bool fitted = false;     ///< only widths that fit the training pairs at the end: d >= 16
};
const std::vector<Column>& columns();

/// Orders of magnitude, log10 of the largest over the smallest value over the widths of the arm, one a seed. Widths
/// that have no such checkpoint (the loss was never matched) are left out.
std::vector<double> orders(const Study& study, const Arm& arm, const Observable& observable, const Column& column);

/// The orders of lambda_min+(G) at resid_mid at the end, taken apart one after the other, one value a seed.
struct Parts {
  std::vector<double> raw;        ///< all of it
  std::vector<double> residual;   ///< goes when each width is divided by its tr(G): delta scales with the loss
  std::vector<double> misfit;     ///< goes when widths that do not fit are left out too
  std::vector<double> cap;        ///< goes when at most p - 1 directions are read
  std::vector<double> at_start;   ///< of what is left, as much as those widths differ in at initialisation
  std::vector<double> genuine;    ///< the rest: separation that training made
  std::vector<double> tolerance;  ///< beside: what a relative tolerance of 1e-10 on eigenvalues would have hidden
};
Parts parts(const Study& study, const Arm& arm);

/// log10 of the largest over the smallest train loss in the last quarter of the steps, one value for each training with
/// d >= 16. G goes with its square, whatever the width: a reading at the last step is one of many that it might have
/// been.
std::vector<double> loss_swings(const Study& study, const Arm& arm);

/// How one width's reading moves in the second half of its training, one value a seed.
struct Drift {
  std::vector<double> raw;   ///< log10 of the largest over the smallest lambda_min+(G)
  std::vector<double> rate;  ///< orders that lambda_min+(G) / tr(G) gains in 1000 steps: slope of a least-squares line
};
Drift drift(const Study& study);

/// Spearman's rho of the observable with the width over all seeds and widths of a column, Fisher's z for the interval.
dds::RankCorrelation order_of_widths(const Study& study, const Arm& arm, const Observable& observable,
                                     const Column& column);
/// log10 of the factor that goes with a doubling of the width: slope of a least-squares line, mean over seeds.
Interval orders_a_doubling(const Study& study, const Arm& arm, const Observable& observable, const Column& column);

// ---- grokking ----

/// A training that had learned its training pairs (accuracy 0.99) at least 300 steps before the others (0.9).
struct Grokking {
  const Training* training = nullptr;
  std::int64_t memorised = 0, generalised = 0;
};
std::vector<Grokking> grokkings(const Study& study);

/// A series that may announce it: "test_accuracy", "test_loss", "train_loss" (their logarithms), "weight_norm", "time"
/// (a straight line), or the name of a signature.
std::vector<double> indicator(const Series& series, const std::string& name);
std::vector<std::string> indicators(const Study& study);

/// Steps by which a series has covered half of its way from memorising to generalising before test accuracy has; none
/// where it has no numbers. A straight line in time has some too: what is beyond that is news.
std::optional<double> lead(const Grokking& grokking, const std::string& name);

// ---- Fourier modes ----

/// One network at the end.
struct Network {
  const Training* training = nullptr;
  std::int64_t frequencies = 0;     ///< learned
  double live_activation = 0;       ///< dimensions that hold 99.9 % of the variance at resid_mid
  double live_fisher = 0;           ///< the same of tr(G)
  double dead_share_unlearned = 0;  ///< of the unlearned modes' vectors in the dead directions of the activations, mean
  double dead_share_learned = 0;
  double chance = 0;  ///< dimension of those directions over the width
};
/// Those that fit the training pairs and have dead directions.
std::vector<Network> networks(const Study& study);

std::vector<dds::experiments::Claim> claims(const Study& study, const dds::experiments::RunOptions& options);

/// Writes orders.csv, parts.csv, llc.csv, grokking.csv, modes.csv and figures.html into the run's folder.
void present(const Study& study, const dds::experiments::RunOptions& options);

}  // namespace modular_addition
