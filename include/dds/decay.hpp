// How many directions die, and how fast, from one series of spectra. One run is enough, and the cause of the decay need
// not be known. The model:
//
//   log lambda_j = c_j + rho_j log lambda_min+,   j = 1 .. k,   lambda_j = sigma_j^2 / n
//
// Towards a singular minimum the eigenvalues of r directions fall as powers of one scale tau. The others stay constant.
//   k            the rank of the first reading, fixed over the series
//   lambda_min+  the smallest of these k eigenvalues, or the one that falls farthest where directions are followed
//   rho_j        the rate of eigenvalue j, as a share of the fastest rate
// The count is the number of rho_j > 0.
//
// A second result is the ratio of two slopes, that of the volume log det+ and that of the rate log lambda_min+:
//
//   slope(log det+) / slope(log lambda_min+) = sum_j rho_j
//
// It is r if all rates are equal, and less otherwise (src/docs/the_method.md, Volume identity; arXiv:2606.21158).
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
  /// Confidence of every interval. Above 0, below 1.
  TORCH_ARG(double, confidence) = 0.95;
  /// Readings of steps outside [first_step, last_step] are ignored. In the first steps of a training every eigenvalue
  /// moves, whether it dies or not. first_step <= last_step.
  TORCH_ARG(std::int64_t, first_step) = 0;
  TORCH_ARG(std::int64_t, last_step) = std::numeric_limits<std::int64_t>::max();
  /// Divide the eigenvalues by the trace. For a matrix that decays as a whole, while some of its directions decay
  /// faster: the true Fisher of a classifier falls with 1 - p, p the largest of its probabilities.
  TORCH_ARG(bool, relative) = false;
  /// A direction whose rho_j is below this does not die. Above 0, below 1.
  TORCH_ARG(double, least_rate) = 0.1;
  /// Decades that lambda_min+ must fall by before rates are fitted. Above 0.
  TORCH_ARG(double, least_decades) = 0.4;
  /// An eigenvalue that moves by fewer decades than this stands still. Above 0.
  TORCH_ARG(double, still_decades) = 0.1;
};

/// Whether there is a count; if not, why.
enum class DecayStatus {
  Counted,         ///< each eigenvalue either dies or stands still
  TooFewReadings,  ///< fewer than kMinDecayReadings with a spectrum
  NoDecay,         ///< no eigenvalue falls: nothing dies on this side of this layer, as at the last layer's output
  MatrixDecays,    ///< the largest eigenvalue dies too: the matrix decays as a whole, as an empirical Fisher does where
                   ///< its residual vanishes
  Undecided,  ///< the fall is still too short; or some eigenvalue neither keeps a rate nor stands still, as where a
              ///< decay froze on the way, came back, or only wanders
};
/// "counted", "too_few_readings", "no_decay", "matrix_decays" or "undecided".
std::string_view to_string(DecayStatus status);

/// Directions that decay at one rate.
struct RateGroup {
  std::int64_t directions = 0;
  double rate = 0;           ///< mean of their rho_j
  double low = 0, high = 0;  ///< lowest and highest end of their intervals
};

/// The result for one series.
struct DecayCount {
  SeriesId series;
  DecayStatus status = DecayStatus::TooFewReadings;
  std::int64_t first_step = 0, last_step = 0;  ///< of the readings used
  std::int64_t readings = 0;                   ///< readings used
  std::int64_t fixed_rank = 0;                 ///< k
  std::optional<std::int64_t> count;           ///< directions that die; DecayStatus::Counted only
  std::int64_t low = 0, high = 0;              ///< directions that surely die, and that may die; equal if Counted
  std::int64_t sunk = 0;                       ///< those of `low` that have sunk to the floor
  std::int64_t dead_before = 0;                ///< directions dead at the first reading; not among the k
  std::vector<RateGroup> groups;               ///< directions that die and have a fitted rate, fastest first
  std::optional<double> decades;               ///< fall of lambda_min+ over the readings that lines are fitted to
  std::optional<double> volume_ratio;          ///< slope(log det+) / slope(log lambda_min+), same readings
  std::optional<double> volume_ratio_low, volume_ratio_high;

  /// The result as a sentence: "3 of 20 directions die (steps 100 to 40000): 3 at rate 1.00; log det+ falls 2.97
  /// [2.94, 3.01] times as fast as log lambda_min+".
  std::string statement() const;
};

/// Fewest readings for a count.
inline constexpr std::int64_t kMinDecayReadings = 6;

/// Collects spectra as they come. Counts can be asked for at any time. Of a long series it keeps at most
/// kMaxDecayReadings readings, spread over the whole series.
///
/// *Fit.* Lines (fit_line) are fitted to the readings before the first one in which one of the k singular values is at
/// or below ten times the floor.
///
/// *Dies.* A direction dies if its eigenvalue keeps a positive rate:
///   - the interval of rho_j lies above least_rate,
///   - the slopes over both halves of the fall of lambda_min+, and over its last quarter, are above least_rate,
///   - the eigenvalue falls by more than still_decades,
///   - it does not come back by more than 0.15 of its fall, over all readings,
///   - its fall is no wandering: it follows a smooth curve in time (a line or a bend, after an onset or not; a power
///     law; a relaxation) to within 0.017 of its fall, 0.03 for fewer than 20 readings; or it keeps on a line along
///     another that falls, to within 0.05. Of fewer than 20 readings it is enough that hardly any rises (sign test, 1
///     in 200), unless the fall is slow at both ends, as half a wave is. A fall of more than 4 decades that lasts needs
///     no such curve.
///   - the largest eigenvalue does not fall by half as much: that is a change of scale.
/// It also dies if it sinks to the floor:
///   - it is above ten times the floor in the first reading, and at or below the floor in the last,
///   - it falls by more than least_decades.
///
/// *Stands still.* The interval of rho_j lies below least_rate, and the eigenvalue moves by less than still_decades
/// beyond three standard deviations of its noise. What moves by less but falls surely, by more than others rise, and to
/// the end, as with a rate far below least_rate, stays open. What ends above its start and never falls does not die.
///
/// *Open.* An eigenvalue that does neither leaves the count open, between `low` and `high`. So does a sum of what
/// stands still that surely falls by least_decades, where the gaps are small enough to hide a fall.
///
/// *Order.* An eigenvalue is identified by its place in the descending order first.
///   - If two that die cross, they swap rates. The count stays the same.
///   - If one that dies starts above some that stand still, all that it passes seem to move. So a count that is open
///     over all readings is tried again without the first ones, up to half of the fall of lambda_min+.
///     DecayCount::first_step says where it begins.
///   - Such a later count must pass a test: the eigenvalues that stand still must fit the first spectrum without the
///     directions that die (Cauchy's interlacing, to within still_decades). Otherwise a direction that froze on the way
///     could pass for one that stood still from the start.
///
/// *Directions.* If the count is still open, or nothing seems to die, eigenvalues are identified by their directions,
/// and what falls farthest takes the place of lambda_min+. Where each reading has Signature::axes, singular vectors of
/// successive readings that make an angle below pi/4 belong together. Otherwise eigenvalues that meet go on as they
/// came, where their gap is one line through zero: a fall that a rise crosses leaves every place in the order where it
/// was. Or one eigenvalue a reading is taken out so that the others stay where they were, and so on while that helps.
/// This finds a direction that falls through a dense spectrum where the gaps are not small beside the noise, in up to
/// 512 eigenvalues.
///
/// *Known limits.* A direction that froze before it fell below the smallest eigenvalue of the first spectrum passes the
/// test of a later count. `count` then leaves it out (strong_jitter in experiments/volume_identity). A fall of less
/// than the noise allows to be seen counts as standing still. A log has no axes, so that a count from it can stay open
/// where Monitor::decay_counts has one.
class DecayCounter {
 public:
  /// Throws InvalidArgument for options out of range.
  explicit DecayCounter(DecayOptions options = {});

  /// Adds a reading to its series. A reading without a spectrum (SignatureOptions::spectra) or without numbers is
  /// ignored. If a step comes again, as in a resumed run, the later reading replaces the earlier one and all after it.
  void add(const Signature& signature);

  /// One count per series, in the order of SeriesId.
  std::vector<DecayCount> counts() const;
  /// The count of one series; DecayStatus::TooFewReadings if there is none.
  DecayCount count(const SeriesId& series) const;

 private:
  struct Reading {
    std::int64_t step = 0;
    std::vector<double> log10_lambda;  ///< the k largest eigenvalues, descending; -inf for a zero
    double log10_floor = 0;            ///< an eigenvalue at the floor
    std::size_t clear = 0;             ///< how many of the k singular values are above ten times the floor
    std::vector<std::size_t> places;   ///< with axes: the place of each direction, numbered as in the first reading
  };
  /// What tells directions from one another.
  enum class Following {
    Axes,       ///< their singular vectors
    Crossings,  ///< eigenvalues that meet and go on as they came
    Movers,     ///< eigenvalues whose removal leaves the others where they were
  };
  struct Series {
    std::int64_t fixed_rank = 0;
    std::int64_t dead_before = 0;
    std::int64_t stride = 1;  ///< every stride-th reading is kept, and the last one
    std::int64_t seen = 0;
    std::vector<Reading> readings;
    at::Tensor axes;                  ///< of the last reading
    std::vector<std::size_t> places;  ///< of its directions

    void push(Reading reading);
    void drop_last();
    std::vector<std::size_t> places_of(const at::Tensor& now);
    /// The same with directions in the place of places in the order; empty if these do not tell them.
    std::optional<Series> followed(Following by) const;
    bool has_axes() const;
  };
  class Analysis;
  DecayCount counted(const SeriesId& id, const Series& series) const;
  DecayCount counted_late(const SeriesId& id, const Series& series) const;

  DecayOptions options_;
  std::map<SeriesId, Series> series_;
};

/// Most readings that are kept of a series.
inline constexpr std::size_t kMaxDecayReadings = 512;

}  // namespace dds
