#include "src/series/decay_analysis.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/series/trend.hpp"
#include "src/theory/least_squares.hpp"

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kLeastInPart = 3;  // readings that the slope of part of a fall needs
constexpr double kLeastRateGap = 0.1;    // between the rates of two groups
constexpr double kClearDecades = 2;      // above the floor: ten floors of a singular value
constexpr double kDeep = 4;              // decades
constexpr double kHidden = 2;            // decades that noise may hide
constexpr double kSure = 3.5;            // standard errors: there are many eigenvalues
// Shares of a fall.
constexpr double kReturn = 0.15;                     // that may come back
constexpr double kAlong = 0.05;                      // that a line along lambda_min+ may leave
constexpr double kInTime = 0.017;                    // that a smooth curve in time may leave
constexpr double kInTimeSlow = 0.012, kSlow = 0.19;  // where the last quarter has less of the fall than this
constexpr double kInTimeFew = 0.03;
constexpr double kRise = 0.04;  // that may come before it
constexpr std::size_t kFewReadings = 20;

/// The slope of y over the points whose x lies in [low, high]; empty if they are too few.
std::optional<double> slope_within(double low, double high, const Values& x, const Values& y) {
  Values x_within, y_within;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!(x[i] >= low && x[i] <= high)) continue;
    x_within.push_back(x[i]);
    y_within.push_back(y[i]);
  }
  if (x_within.size() < kLeastInPart) return std::nullopt;
  const CentredSums sums = centred_sums(x_within, y_within);
  return sums.xx > 0 ? std::optional(sums.xy / sums.xx) : std::nullopt;
}

/// Whether the slope of y is above `least` in both halves of the fall of x, and in its last quarter where that holds
/// enough points. The slope of what has frozen on the way is zero in the last of them.
bool keeps_falling(const Values& x, const Values& y, double least) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double middle = (*low + *high) / 2, quarter = (*low + middle) / 2;
  const auto first = slope_within(middle, *high, x, y), second = slope_within(*low, middle, x, y);
  return first && *first > least && second && *second > least && slope_within(*low, quarter, x, y).value_or(1) > least;
}

/// The line of y along x; empty where x is too short, or stands still.
std::optional<LineFit> line_along(std::span<const double> x, std::span<const double> y, double confidence) {
  if (std::ssize(x) < kMinDecayReadings) return std::nullopt;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  return *low < *high ? std::optional(fit_line(x, y, confidence)) : std::nullopt;
}

/// Rates sorted into groups, the fastest first. A new group begins where a rate lies below the last by more than both
/// half intervals, and by more than kLeastRateGap.
std::vector<RateGroup> grouped(std::vector<LineFit> rates) {
  std::sort(rates.begin(), rates.end(), [](const LineFit& a, const LineFit& b) { return a.slope > b.slope; });
  std::vector<RateGroup> groups;
  double last = 0, last_half = 0;
  for (const LineFit& rate : rates) {
    const double half = (rate.high - rate.low) / 2;
    if (groups.empty() || last - rate.slope > std::max(kLeastRateGap, half + last_half)) {
      groups.push_back({0, 0, rate.low, rate.high});
    }
    RateGroup& group = groups.back();
    group.rate += (rate.slope - group.rate) / static_cast<double>(++group.directions);
    group.low = std::min(group.low, rate.low);
    group.high = std::max(group.high, rate.high);
    last = rate.slope;
    last_half = half;
  }
  return groups;
}

/// Whether `rest` can be what is left of the spectrum `all` when all.size() - rest.size() = g directions are taken
/// away. Cauchy's interlacing, here up to `tolerance`: all_(j + g) <= rest_j <= all_j. Both are descending.
bool interlaces(const Values& rest, const Values& all, double tolerance) {
  const std::size_t gone = all.size() - rest.size();
  for (std::size_t j = 0; j < rest.size(); ++j) {
    if (rest[j] > all[j] + tolerance || rest[j] < all[j + gone] - tolerance) return false;
  }
  return true;
}

}  // namespace

DecayCounter::Analysis::Analysis(const Series& series, std::size_t begin, const DecayOptions& options)
    : options_(options),
      series_(series),
      readings_(std::span(series.readings).subspan(begin)),
      k_(static_cast<std::size_t>(series.fixed_rank)) {
  const auto near =
      std::find_if(readings_.begin(), readings_.end(), [&](const Reading& reading) { return reading.clear < k_; });
  clear_ = readings_.first(static_cast<std::size_t>(near - readings_.begin()));
  if (k_ > 0) x_ = clear_of_floor(k_ - 1);
  if (std::ssize(x_) >= kMinDecayReadings) decades_ = fall(x_);
  fitted_ = decades_ && *decades_ >= options.least_decades();
  if (fitted_) drift_ = drift();
}

/// The readings of the whole series before the first in which one of the k is near the floor.
std::span<const DecayCounter::Reading> DecayCounter::Analysis::clear_of_all() const {
  const std::span<const Reading> all(series_.readings);
  const auto near = std::find_if(all.begin(), all.end(), [&](const Reading& reading) { return reading.clear < k_; });
  return all.first(static_cast<std::size_t>(near - all.begin()));
}

/// y_j over the readings in which it is above the floor.
Values DecayCounter::Analysis::above_floor(std::size_t j) const {
  Values values;
  for (const Reading& reading : readings_) {
    if (reading.log10_lambda[j] > reading.log10_floor) values.push_back(reading.log10_lambda[j]);
  }
  return values;
}

Values DecayCounter::Analysis::clear_of_floor(std::size_t j) const {
  Values values;
  for (const Reading& reading : clear_) values.push_back(reading.log10_lambda[j]);
  return values;
}

/// Whether eigenvalue j, which is below the floor at the end, came down to it. The floor may have risen to it instead,
/// or it may have hovered there from the start.
bool DecayCounter::Analysis::sinks(std::size_t j) const {
  Values y;
  for (const Reading& reading : readings_) y.push_back(reading.log10_lambda[j]);
  return y.front() > readings_.front().log10_floor + kClearDecades && fall(y) > options_.least_decades();
}

/// Whether a series is lower at its end by more than still_decades, beyond noise.
bool DecayCounter::Analysis::falls(const Values& y) const {
  Values index(y.size());
  std::iota(index.begin(), index.end(), 0.0);
  const LineFit line = fit_line(index, y, options_.confidence());
  return fall(y) > options_.still_decades() + 3 * noise_of(y) || -line.high * index.back() > options_.still_decades();
}

/// Whether eigenvalue j ends as low as it ever was, up to noise and part of its fall. All readings count, those near
/// the floor too.
bool DecayCounter::Analysis::stays_down(std::size_t j) const {
  Values y;
  for (const Reading& reading : readings_) y.push_back(std::max(reading.log10_lambda[j], reading.log10_floor));
  double lowest = median(std::span(y).first(kEnd)), highest = lowest;
  for (std::size_t i = 1; i + kEnd <= y.size(); ++i) {
    const double here = median(std::span(y).subspan(i, kEnd));
    lowest = std::min(lowest, here);
    highest = std::max(highest, here);
  }
  const double end = median(std::span(y).last(kEnd));
  return end - lowest <= kReturn * (highest - lowest) + 3 * noise_of(y);
}

/// Whether eigenvalue j falls along a smooth curve in time, over the whole series.
bool DecayCounter::Analysis::falls_in_time(std::size_t j) const {
  Values steps, y;
  for (const Reading& reading : series_.readings) {
    if (reading.clear < k_) break;
    steps.push_back(static_cast<double>(reading.step));
    y.push_back(reading.log10_lambda[j]);
  }
  if (std::ssize(y) < kMinDecayReadings) return false;
  const double fallen = fall(y);
  // A fall that a rise comes before is half of a wave.
  if (!(fallen > 0) || highest_of(y) - y.front() > kRise * fallen + 3 * noise_of(y)) return false;
  const double left = unexplained(steps, y, fallen);
  const std::size_t quarter = y.size() / 4;
  const double first = median(std::span(y).first(kEnd)) - median(std::span(y).subspan(quarter - kEnd / 2, kEnd));
  const double last = median(std::span(y).subspan(3 * y.size() / 4 - kEnd / 2, kEnd)) - median(std::span(y).last(kEnd));
  if (y.size() < kFewReadings) {
    // So few show no curve, but hardly any of them rises where a direction dies. Half a wave is slow at both ends.
    const bool wave = first < kSlow * fallen && last < kSlow * fallen;
    return left < kInTimeFew || (dds::rarely_rises(y) && !wave);
  }
  return left < (last < kSlow * fallen ? kInTimeSlow : kInTime);
}

/// Whether eigenvalue j stays so far below its start that no wandering takes it there: where it hovers, noise may be
/// large. A single reading may lie higher, as where a row comes back that a direction needs.
bool DecayCounter::Analysis::is_deep(std::size_t j) const {
  const std::vector<Reading>& all = series_.readings;
  const double least = all.front().log10_lambda[j] - kDeep;
  const auto below = [&](const Reading& reading) { return reading.log10_lambda[j] < least; };
  const auto third = std::span(all).last(all.size() / 3), end = std::span(all).last(std::min(kEnd, all.size()));
  return 4 * std::count_if(third.begin(), third.end(), below) >= 3 * std::ssize(third) &&
         std::all_of(end.begin(), end.end(), below);
}

/// Whether eigenvalue j falls on a line along lambda_min+: two directions that share a scale confirm one another.
bool DecayCounter::Analysis::falls_along_x(std::size_t j, const LineFit& rate) const {
  return j + 1 < k_ && rate.residual < kAlong * fall(clear_of_floor(j));
}

/// The line of eigenvalue j along the last one, over the whole series.
std::optional<LineFit> DecayCounter::Analysis::line_over_all(std::size_t j) const {
  Values x, y;
  for (const Reading& reading : clear_of_all()) {
    x.push_back(reading.log10_lambda.back());
    y.push_back(reading.log10_lambda[j]);
  }
  return line_along(x, y, options_.confidence());
}

/// How much an eigenvalue that hardly moves drifts as lambda_min+ falls, in either direction: the root mean square of
/// those that rise, beyond noise. Eigenvalues that do not die drift as a training goes on.
double DecayCounter::Analysis::drift() const {
  double squares = 0, rising = 0;
  for (std::size_t j = 0; j + 1 < k_; ++j) {
    const auto line = line_over_all(j);
    if (!line || line->slope >= 0 || -line->slope * *decades_ > options_.still_decades()) continue;
    squares += line->slope * line->slope - line->standard_error * line->standard_error;
    ++rising;
  }
  return rising > 0 ? std::sqrt(std::max(0.0, squares / rising)) : 0;
}

/// Whether an eigenvalue that hardly moves falls all the same, as slow ones do: surely, by more than others drift, and
/// to the end.
bool DecayCounter::Analysis::creeps(std::size_t j) const {
  Values x, y;
  for (const Reading& reading : clear_of_all()) {
    x.push_back(reading.log10_lambda.back());
    y.push_back(reading.log10_lambda[j]);
  }
  const auto whole = line_over_all(j);
  if (!whole || whole->slope < kSure * std::hypot(whole->standard_error, drift_)) return false;
  if (whole->slope * fall(x) < options_.still_decades() / 2) return false;
  const std::size_t half = x.size() / 2;
  const auto later = line_along(std::span(x).subspan(half), std::span(y).subspan(half), options_.confidence());
  if (!later) return keeps_falling(x, y, whole->slope / 2);
  return later->slope + kSure * later->standard_error > whole->slope;
}

/// The most decades that one direction can have fallen by unseen, through places that stand still. Each that it passes
/// falls by its gap to the next one, so that the gap is small or has been crossed.
double DecayCounter::Analysis::hidden_fall(const std::vector<Fate>& fates) const {
  double longest = 0, run = 0;
  for (std::size_t j = 0; j + 1 < k_; ++j) {
    const Values y = clear_of_floor(j), next = clear_of_floor(j + 1);
    const double gap = median(std::span(y).first(kEnd)) - median(std::span(next).first(kEnd));
    const bool passed = fates[j].level && fall(y) > gap / 2 - 3 * noise_of(y) / std::sqrt(2.0);
    run = passed ? run + gap : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

/// Whether what stands still does so together. One that falls through the others moves each place by a
/// gap only, but the sum of all by its whole fall.
bool DecayCounter::Analysis::volume_is_told(const std::vector<Fate>& fates) const {
  if (std::ssize(clear_) < kMinDecayReadings || hidden_fall(fates) < options_.least_decades()) return true;
  Values index, volume;
  for (const Reading& reading : clear_) {
    double sum = 0;
    for (std::size_t j = 0; j < k_; ++j) {
      if (fates[j].level) sum += reading.log10_lambda[j];
    }
    index.push_back(static_cast<double>(index.size()));
    volume.push_back(sum);
  }
  const LineFit line = fit_line(index, volume, options_.confidence());
  const double span = index.back(), surely = -line.high * span, likely = -line.slope * span, at_most = -line.low * span;
  return at_most < kHidden && (surely < 0 || likely < options_.least_decades());
}

/// Whether eigenvalue j falls at nearly every reading, where these are too few to show a curve.
bool DecayCounter::Analysis::rarely_rises(std::size_t j) const {
  const Values y = clear_of_floor(j);
  return y.size() < kFewReadings && dds::rarely_rises(y);
}

/// Whether eigenvalue j falls as the largest does: that is a change of scale, and the death of no direction.
bool DecayCounter::Analysis::falls_with_all(std::size_t j) const {
  return fall(clear_of_floor(0)) > fall(clear_of_floor(j)) / 2;
}

/// Takes the rate from what may only wander: one series is a line along itself, whatever it does. A fall counts if it
/// is smooth in time, or if it shares its course with another.
void DecayCounter::Analysis::drop_what_wanders(std::vector<Fate>& fates) const {
  if (!fitted_) return;
  const bool x_rarely_rises = rarely_rises(k_ - 1);
  const auto shares = [&](std::size_t j) {
    return j + 1 < k_ && fates[j].rate && (falls_along_x(j, *fates[j].rate) || (x_rarely_rises && rarely_rises(j)));
  };
  std::vector<bool> sharing;
  for (std::size_t j = 0; j < k_; ++j) sharing.push_back(shares(j));
  const bool x_falls = falls_in_time(k_ - 1) || std::find(sharing.begin(), sharing.end(), true) != sharing.end();
  for (std::size_t j = 0; j < k_; ++j) {
    Fate& fate = fates[j];
    if (!fate.rate) continue;
    const bool steady = j + 1 == k_ ? x_falls : (x_falls && sharing[j]) || falls_in_time(j);
    if (((steady && stays_down(j)) || is_deep(j)) && !falls_with_all(j)) continue;
    fate.rate.reset();
    fate.falls = true;
  }
}

DecayCounter::Analysis::Fate DecayCounter::Analysis::fate_of(std::size_t j) const {
  Fate fate;
  const bool afloat = readings_.back().log10_lambda[j] > readings_.back().log10_floor;
  if (!afloat) fate.sunk = sinks(j);
  bool no_rate = !fitted_;  // rho_j is surely below least_rate, or there is nothing to fit it to
  if (fitted_) {
    const Values y = clear_of_floor(j);
    const LineFit rate = fit_line(x_, y, options_.confidence());
    no_rate = rate.high < options_.least_rate() && !creeps(j);
    // A drift of less than still_decades has no rate, however straight it is.
    if (rate.low > options_.least_rate() && fall(y) > options_.still_decades() &&
        keeps_falling(x_, y, options_.least_rate())) {
      fate.rate = rate;
    }
  }
  if (fate.dies() || !afloat) return fate;
  const Values y = above_floor(j);
  fate.falls = std::ssize(y) >= kMinDecayReadings && falls(y);
  if (no_rate && moved(y) < options_.still_decades()) fate.level = median(y);
  fate.rises = !fate.level && std::ssize(y) >= kMinDecayReadings && only_rises(y, options_.still_decades());
  return fate;
}

/// slope(log det+) / slope(log lambda_min+)
void DecayCounter::Analysis::set_volume_ratio(DecayCount& count) const {
  Values volume;
  for (const Reading& reading : clear_) {
    volume.push_back(std::accumulate(reading.log10_lambda.begin(), reading.log10_lambda.end(), 0.0));
  }
  const LineFit ratio = fit_line(x_, volume, options_.confidence());
  count.volume_ratio = ratio.slope;
  count.volume_ratio_low = ratio.low;
  count.volume_ratio_high = ratio.high;
}

/// `matrix`: the largest eigenvalue keeps a rate.
DecayStatus DecayCounter::Analysis::status(const DecayCount& count, const std::vector<Fate>& fates, bool matrix) const {
  const bool any_falls = std::any_of(fates.begin(), fates.end(), [](const Fate& fate) { return fate.falls; });
  if (decades_ && !falls(x_) && count.low == 0 && !any_falls) return DecayStatus::NoDecay;
  if (fates.empty() || matrix) return DecayStatus::MatrixDecays;
  if (count.low < count.high) return DecayStatus::Undecided;
  if (!fitted_ && count.sunk == 0) return DecayStatus::Undecided;
  // Part of a series only counts if what stands still in it was there in the first reading.
  if (readings_.size() < series_.readings.size()) {
    Values standing;
    for (const Fate& fate : fates) {
      if (fate.level) standing.push_back(*fate.level);
    }
    Values first = series_.readings.front().log10_lambda;
    std::sort(first.rbegin(), first.rend());
    std::sort(standing.rbegin(), standing.rend());
    if (!interlaces(standing, first, options_.still_decades())) {
      return DecayStatus::Undecided;
    }
  }
  return DecayStatus::Counted;
}

DecayCount DecayCounter::Analysis::count(const SeriesId& id) const {
  DecayCount result;
  result.series = id;
  result.readings = std::ssize(readings_);
  result.fixed_rank = series_.fixed_rank;
  result.dead_before = series_.dead_before;
  result.high = series_.fixed_rank;
  if (readings_.empty()) return result;
  result.first_step = readings_.front().step;
  result.last_step = readings_.back().step;
  if (result.readings < kMinDecayReadings) return result;

  result.decades = decades_;
  std::vector<Fate> fates;
  std::vector<LineFit> rates;
  result.high = 0;
  for (std::size_t j = 0; j < k_; ++j) fates.push_back(fate_of(j));
  const bool matrix = !fates.empty() && fates.front().dies();
  drop_what_wanders(fates);
  for (const Fate& fate : fates) {
    result.sunk += fate.sunk;
    result.low += fate.dies();
    result.high += fate.dies() || !fate.told();
    if (fate.rate) rates.push_back(*fate.rate);
  }
  const bool told = volume_is_told(fates);
  if (!told) result.high = result.fixed_rank;
  result.groups = grouped(std::move(rates));
  if (fitted_) set_volume_ratio(result);
  result.status = status(result, fates, matrix);
  if (!told && result.status == DecayStatus::NoDecay) result.status = DecayStatus::Undecided;
  if (result.status == DecayStatus::Counted) result.count = result.low;
  return result;
}

}  // namespace dds
