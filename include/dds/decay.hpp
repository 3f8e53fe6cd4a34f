// How many directions die, and how fast: counted on one series of spectra, without a second run and without knowing
// what drives them.
//
//   log lambda_j = c_j + rho_j log lambda_min+,   j = 1 .. k,   lambda_j = sigma_j^2 / n
//
// Towards a singular minimum the eigenvalues of r directions fall as powers of one scale tau, the others stay where
// they are. k is the rank of the first reading, fixed over the series, lambda_min+ the last of these k, and rho_j the
// rate of eigenvalue j as a share of the fastest one: the number of rho_j > 0 is the count. Beside it stands the ratio
// of the volume to the rate observable, slope(log det+) / slope(log lambda_min+) = sum_j rho_j: it equals r where all
// rates are equal and is a lower bound otherwise (volume identity, arXiv:2606.21158; rates that differ: DESIGN.md 6.2).
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
  /// Of every interval.
  TORCH_ARG(double, confidence) = 0.95;
  /// Readings of steps outside [first_step, last_step] are left out: the first steps of a training, in which everything
  /// moves, say nothing of what dies.
  TORCH_ARG(std::int64_t, first_step) = 0;
  TORCH_ARG(std::int64_t, last_step) = std::numeric_limits<std::int64_t>::max();
  /// Take eigenvalues as shares of the trace, for a matrix that dies as a whole while some of its directions die
  /// faster: the true Fisher of a classifier falls with 1 - p.
  TORCH_ARG(bool, relative) = false;
  /// A rate below this share of the fastest is none.
  TORCH_ARG(double, least_rate) = 0.1;
  /// Decades by which lambda_min+ must have fallen before there is anything to count.
  TORCH_ARG(double, least_decades) = 0.4;
  /// Decades that an eigenvalue may move and still count as standing still.
  TORCH_ARG(double, still_decades) = 0.1;
};

/// What a count rests on, or why there is none.
enum class DecayStatus {
  Counted,         ///< every eigenvalue is told: it decays, or it stands still
  TooFewReadings,  ///< fewer than kMinDecayReadings with a spectrum
  NoDecay,         ///< lambda_min+ stands still: nothing dies on this side of this layer, as at the last one's output
  MatrixDecays,  ///< the largest eigenvalue falls too: what dies is the whole matrix, such as an empirical Fisher whose
                 ///< residual vanishes, and not a direction of it
  Undecided,     ///< some eigenvalue neither keeps a rate nor stands still, as where a decay froze on the way, or the
                 ///< fall is still too short
};
std::string_view to_string(DecayStatus status);

/// Directions that decay at one rate.
struct RateGroup {
  std::int64_t directions = 0;
  double rate = 0;           ///< mean of their rho_j: 1 is the fastest
  double low = 0, high = 0;  ///< hull of their intervals
};

/// What a series says of the directions that die in it.
struct DecayCount {
  SeriesId series;
  DecayStatus status = DecayStatus::TooFewReadings;
  std::int64_t first_step = 0, last_step = 0;  ///< of the readings that it rests on
  std::int64_t readings = 0;
  std::int64_t fixed_rank = 0;         ///< k
  std::optional<std::int64_t> count;   ///< directions that die; with DecayStatus::Counted only
  std::int64_t low = 0, high = 0;      ///< those that surely do, and those that may: equal where counted
  std::int64_t sunk = 0;               ///< of `low`, those that have reached the floor
  std::int64_t dead_before = 0;        ///< dead directions of the first reading: they are not among the k
  std::vector<RateGroup> groups;       ///< of those whose rate could be fitted, the fastest first
  std::optional<double> decades;       ///< by which lambda_min+ fell, as far as all k are above the floor
  std::optional<double> volume_ratio;  ///< slope(log det+) / slope(log lambda_min+) over the same readings
  std::optional<double> volume_ratio_low, volume_ratio_high;

  /// In a sentence: "3 of 20 directions die (steps 100 to 40000): 3 at one rate; log det+ falls 2.97 [2.94, 3.01] times
  /// as fast as lambda_min+".
  std::string statement() const;
};

inline constexpr std::int64_t kMinDecayReadings = 6;

/// Collects spectra as they come, and counts at any time. Of a long series it keeps kMaxDecayReadings readings, spread
/// over all of it.
///
/// A direction *dies* if its eigenvalue keeps a positive rate: the interval of rho_j (fit_line) lies above least_rate,
/// the slopes of both halves of the fall and of its last quarter do too, and it has moved by more than still_decades;
/// or if it has sunk to the floor, from well above it and by least_decades. It *stands still* if that interval lies
/// below least_rate and the eigenvalue has moved by less than still_decades. Any other leaves the count undecided,
/// between `low` and `high`. Fits use the readings before the first of the k singular values comes within ten times the
/// floor.
///
/// Eigenvalues are followed by their order. Where two that decay cross, they swap rates, not the count. Where one that
/// decays comes from among the others, all that it passes seem to move: a count that is undecided over all readings is
/// tried again without the first of them, down to half of the fall of lambda_min+. It stands if what stands still then
/// can be what is left of the first spectrum without the directions that die (Cauchy's interlacing, to within
/// still_decades), so that what froze on the way is not taken for alive. DecayCount::first_step says where it begins.
///
/// Known limit: a direction that froze on the way is taken for alive if it never fell below the first spectrum's
/// smallest eigenvalue; then `count` is that of the directions that do die (strong_jitter in
/// experiments/volume_identity).
class DecayCounter {
 public:
  /// Throws InvalidArgument for options out of range.
  explicit DecayCounter(DecayOptions options = {});

  /// Adds a reading of its series; one without a spectrum (SignatureOptions::spectra) or without numbers is passed
  /// over.
  void add(const Signature& signature);

  /// One count per series, in the order of SeriesId.
  std::vector<DecayCount> counts() const;
  /// The count of one series; that of no readings if there is none.
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
