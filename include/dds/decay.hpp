// How many directions die, and how fast, from one series of spectra. It needs no second run, and nothing about what
// drives the decay.
//
//   log lambda_j = c_j + rho_j log lambda_min+,   j = 1 .. k,   lambda_j = sigma_j^2 / n
//
// Towards a singular minimum the eigenvalues of r directions fall as powers of one scale tau; the others stay where
// they are. k is the rank of the first reading, fixed over the series. lambda_min+ is the last of these k eigenvalues,
// and rho_j the rate of eigenvalue j as a share of the fastest rate. The count is the number of rho_j > 0.
//
// Beside it stands the ratio of two slopes, the volume's and the rate's:
//
//   slope(log det+) / slope(log lambda_min+) = sum_j rho_j
//
// It is r where all rates are equal, and less otherwise (src/docs/the_method.md, Volume identity; arXiv:2606.21158).
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

struct DecayOptions {
  /// Of every interval. Above 0, below 1.
  TORCH_ARG(double, confidence) = 0.95;
  /// Readings of steps outside [first_step, last_step] are left out. Everything moves in the first steps of a training,
  /// which says nothing of what dies.
  TORCH_ARG(std::int64_t, first_step) = 0;
  TORCH_ARG(std::int64_t, last_step) = std::numeric_limits<std::int64_t>::max();
  /// Take eigenvalues as shares of the trace. For a matrix that dies as a whole, while some of its directions die
  /// faster: the true Fisher of a classifier falls with 1 - p.
  TORCH_ARG(bool, relative) = false;
  /// A rho_j below this is no rate. Above 0, below 1.
  TORCH_ARG(double, least_rate) = 0.1;
  /// lambda_min+ must have fallen by so many decades before anything is counted. Above 0.
  TORCH_ARG(double, least_decades) = 0.4;
  /// An eigenvalue that moves by fewer decades stands still. Above 0.
  TORCH_ARG(double, still_decades) = 0.1;
};

/// Whether there is a count, and why not.
enum class DecayStatus {
  Counted,         ///< each eigenvalue either dies or stands still
  TooFewReadings,  ///< fewer than kMinDecayReadings with a spectrum
  NoDecay,         ///< lambda_min+ stands still. Nothing dies on this side of this layer, as at the last layer's output
  MatrixDecays,    ///< the largest eigenvalue falls too: the whole matrix dies and not a direction of it. An empirical
                   ///< Fisher does where its residual vanishes
  Undecided,       ///< some eigenvalue neither keeps a rate nor stands still, as where a decay froze on the way; or the
                   ///< fall is still too short
};
/// "counted", "too_few_readings", "no_decay", "matrix_decays" or "undecided".
std::string_view to_string(DecayStatus status);

/// Directions that decay at one rate.
struct RateGroup {
  std::int64_t directions = 0;
  double rate = 0;           ///< mean of their rho_j; the fastest is 1
  double low = 0, high = 0;  ///< from the lowest end to the highest of their intervals
};

/// What a series says of the directions that die in it.
struct DecayCount {
  SeriesId series;
  DecayStatus status = DecayStatus::TooFewReadings;
  std::int64_t first_step = 0, last_step = 0;  ///< of the readings that were used
  std::int64_t readings = 0;
  std::int64_t fixed_rank = 0;         ///< k
  std::optional<std::int64_t> count;   ///< directions that die; with DecayStatus::Counted only
  std::int64_t low = 0, high = 0;      ///< directions that surely die, and that may die: equal where counted
  std::int64_t sunk = 0;               ///< of `low`, those that have reached the floor
  std::int64_t dead_before = 0;        ///< dead directions of the first reading, which are not among the k
  std::vector<RateGroup> groups;       ///< of those whose rate could be fitted, the fastest first
  std::optional<double> decades;       ///< that lambda_min+ fell by while all k were well above the floor
  std::optional<double> volume_ratio;  ///< slope(log det+) / slope(log lambda_min+) over the same readings
  std::optional<double> volume_ratio_low, volume_ratio_high;

  /// In a sentence: "3 of 20 directions die (steps 100 to 40000): 3 at rate 1.00; log det+ falls 2.97 [2.94, 3.01]
  /// times as fast as log lambda_min+".
  std::string statement() const;
};

inline constexpr std::int64_t kMinDecayReadings = 6;

/// Collects spectra as they come, and counts at any time. Of a long series it keeps kMaxDecayReadings readings, spread
/// over all of it.
///
/// *Dies.* A direction dies if its eigenvalue keeps a positive rate:
///   - the interval of rho_j (fit_line) lies above least_rate,
///   - so do the slopes over both halves of the fall of lambda_min+ and over its last quarter,
///   - it falls by more than still_decades;
/// or if it has sunk to the floor, from ten times the floor and by least_decades.
///
/// *Stands still.* Its interval lies below least_rate, and it has moved by less than still_decades.
///
/// Any other eigenvalue leaves the count open, between `low` and `high`. Lines are fitted to the readings before the
/// first in which one of the k singular values is below ten times the floor.
///
/// *Order.* Eigenvalues are followed by their order. Where two that die cross, they swap rates; the count stays. Where
/// one that dies comes from among the others, all that it passes seem to move. So a count that is open over all
/// readings is tried again without the first ones, up to half of the fall of lambda_min+. It then holds only if what
/// stands still can be what is left of the first spectrum without the directions that die, by Cauchy's interlacing to
/// within still_decades. That keeps what froze on the way from passing for alive. DecayCount::first_step says where it
/// begins.
///
/// *Known limit.* A direction that froze before it fell below the smallest eigenvalue of the first spectrum passes for
/// alive. `count` is then that of the directions that do die (strong_jitter in experiments/volume_identity).
class DecayCounter {
 public:
  /// Throws InvalidArgument for options out of range.
  explicit DecayCounter(DecayOptions options = {});

  /// Adds a reading to its series. One without a spectrum (SignatureOptions::spectra) or without numbers is passed
  /// over.
  void add(const Signature& signature);

  /// One count per series, in the order of SeriesId.
  std::vector<DecayCount> counts() const;
  /// The count of one series; DecayStatus::TooFewReadings if there is none.
  DecayCount count(const SeriesId& series) const;

 private:
  struct Reading {
    std::int64_t step = 0;
    std::vector<double> log10_lambda;  ///< the k largest eigenvalues, descending; -inf for a zero
    std::size_t above = 0;             ///< how many of them are above the floor
    std::size_t clear = 0;             ///< and far enough above it for a fit
  };
  struct Series {
    std::int64_t fixed_rank = 0;
    std::int64_t dead_before = 0;
    std::int64_t stride = 1;  ///< every stride-th reading is kept, and the last one
    std::int64_t seen = 0;
    std::vector<Reading> readings;

    void push(Reading reading);
    void drop_last();
  };
  class Analysis;
  DecayCount counted(const SeriesId& id, const Series& series) const;

  DecayOptions options_;
  std::map<SeriesId, Series> series_;
};

inline constexpr std::size_t kMaxDecayReadings = 512;

}  // namespace dds
