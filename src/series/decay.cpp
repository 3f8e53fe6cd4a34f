#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <dds/decay.hpp>
#include <dds/error.hpp>
#include <dds/fit.hpp>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kBlocks = 4;          // quarters, whose medians say how far a series has moved
constexpr std::size_t kEnd = 3;             // readings whose median stands for an end of a series
constexpr std::ptrdiff_t kLeastInPart = 3;  // readings that the slope of part of a fall needs
constexpr double kLeastGap = 0.1;           // between the rates of two groups
constexpr double kClear = 10;               // times the floor: below, rounding noise bends the lines that are fitted
// Shares of the fall of lambda_min+ before which a count may begin: everything may move at the start of a training.
constexpr std::array kOnsets{0.0, 0.1, 0.2, 0.3, 0.4, 0.5};

double median(std::span<const double> values) {
  Values sorted(values.begin(), values.end());
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

/// Decades between the ends of a series of at least kEnd values.
double fall(const Values& series) {
  return median(std::span(series).first(kEnd)) - median(std::span(series).last(kEnd));
}

/// Range of the series' two ends and of the medians of its quarters: what a noisy reading in between does not move.
double moved(const Values& series) {
  const std::span all(series);
  Values places{all.front(), all.back()};
  for (std::size_t b = 0; b < kBlocks; ++b) {
    const std::size_t begin = b * all.size() / kBlocks, end = (b + 1) * all.size() / kBlocks;
    if (end > begin) places.push_back(median(all.subspan(begin, end - begin)));
  }
  const auto [low, high] = std::minmax_element(places.begin(), places.end());
  return *high - *low;
}

/// The slope of y over the points whose x lies in [low, high]; empty if they are too few.
std::optional<double> slope_within(double low, double high, const Values& x, const Values& y) {
  const auto within = [&](double value) { return value >= low && value <= high; };
  double n = 0, sx = 0, sy = 0, xx = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!within(x[i])) continue;
    ++n;
    sx += x[i];
    sy += y[i];
  }
  if (n < kLeastInPart) return std::nullopt;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!within(x[i])) continue;
    xx += (x[i] - sx / n) * (x[i] - sx / n);
    xy += (x[i] - sx / n) * (y[i] - sy / n);
  }
  return xx > 0 ? std::optional(xy / xx) : std::nullopt;
}

/// Whether the slope of y is above `least` in both halves of the fall of x, and in its last quarter where that holds
/// enough points: what has frozen on the way has no slope there.
bool keeps_falling(const Values& x, const Values& y, double least) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double middle = (*low + *high) / 2, quarter = (*low + middle) / 2;
  const auto first = slope_within(middle, *high, x, y), second = slope_within(*low, middle, x, y);
  return first && *first > least && second && *second > least && slope_within(*low, quarter, x, y).value_or(1) > least;
}

/// Rates sorted into groups: a new one begins where a rate lies apart from the last by more than both intervals.
std::vector<RateGroup> grouped(std::vector<LineFit> rates) {
  std::sort(rates.begin(), rates.end(), [](const LineFit& a, const LineFit& b) { return a.slope > b.slope; });
  std::vector<RateGroup> groups;
  double last = 0, last_half = 0;
  for (const LineFit& rate : rates) {
    const double half = (rate.high - rate.low) / 2;
    if (groups.empty() || last - rate.slope > std::max(kLeastGap, half + last_half)) {
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

/// Whether `rest` may be what is left of the spectrum `all` once all.size() - rest.size() directions are gone: by
/// Cauchy's interlacing, all_(j + gone) <= rest_j <= all_j, here up to `tolerance`. Both descending.
bool interlaces(const Values& rest, const Values& all, double tolerance) {
  const std::size_t gone = all.size() - rest.size();
  for (std::size_t j = 0; j < rest.size(); ++j) {
    if (rest[j] > all[j] + tolerance || rest[j] < all[j + gone] - tolerance) return false;
  }
  return true;
}

void check(const DecayOptions& options) {
  const auto refuse = [](std::string_view name, double value, std::string_view expected) {
    throw InvalidArgument(fmt::format("DecayOptions: {} is {}, expected {}", name, value, expected));
  };
  if (!(options.confidence() > 0 && options.confidence() < 1))
    refuse("confidence", options.confidence(), "a number between 0 and 1");
  if (!(options.least_rate() > 0 && options.least_rate() < 1))
    refuse("least_rate", options.least_rate(), "a number between 0 and 1");
  if (!(options.least_decades() > 0)) refuse("least_decades", options.least_decades(), "a positive number");
  if (!(options.still_decades() > 0)) refuse("still_decades", options.still_decades(), "a positive number");
  if (options.first_step() > options.last_step())
    throw InvalidArgument(fmt::format("DecayOptions: first_step is {}, expected at most last_step, {}",
                                      options.first_step(), options.last_step()));
}

std::string plural(std::int64_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

}  // namespace

std::string_view to_string(DecayStatus status) {
  switch (status) {
    case DecayStatus::Counted:
      return "counted";
    case DecayStatus::TooFewReadings:
      return "too_few_readings";
    case DecayStatus::NoDecay:
      return "no_decay";
    case DecayStatus::MatrixDecays:
      return "matrix_decays";
    case DecayStatus::Undecided:
      return "undecided";
  }
  return "";
}

DecayCounter::DecayCounter(DecayOptions options) : options_(options) { check(options_); }

void DecayCounter::add(const Signature& signature) {
  if (signature.step < options_.first_step() || signature.step > options_.last_step()) return;
  if (signature.spectrum.empty() || !signature.floor) return;
  if (signature.rank.value_or(0) == 0 || signature.rows.value_or(0) == 0) return;
  if (options_.relative() && !signature.log10_trace) return;
  Series& series = series_[series_of(signature)];
  // A resumed run repeats steps: the later reading counts.
  while (!series.readings.empty() && series.readings.back().step >= signature.step) {
    series.readings.pop_back();
    series.seen = (std::ssize(series.readings) - 1) * series.stride + 1;
  }
  if (series.readings.empty()) {
    series = Series();
    // The rank of the run's first reading, but of the first one here if directions were lost before first_step.
    series.fixed_rank = std::min(signature.fixed_rank.value_or(*signature.rank), *signature.rank);
    series.dead_before = signature.dead_directions.value_or(0);
  }
  const auto k = static_cast<std::size_t>(series.fixed_rank);
  if (signature.spectrum.size() < k) return;  // fewer rows than directions

  Reading reading;
  reading.step = signature.step;
  const double offset =
      -std::log10(static_cast<double>(*signature.rows)) - (options_.relative() ? *signature.log10_trace : 0);
  for (std::size_t j = 0; j < k; ++j) {
    reading.log10_lambda.push_back(2 * std::log10(signature.spectrum[j]) + offset);
    reading.above += signature.spectrum[j] > *signature.floor;
    reading.clear += signature.spectrum[j] > kClear * *signature.floor;
  }
  // The last reading is always kept, the others as the stride says.
  if (!series.readings.empty() && (series.seen - 1) % series.stride != 0) series.readings.pop_back();
  series.readings.push_back(std::move(reading));
  ++series.seen;
  if (series.readings.size() > kMaxDecayReadings) {
    std::vector<Reading> half;
    for (std::size_t i = 0; i < series.readings.size(); i += 2) half.push_back(std::move(series.readings[i]));
    series.readings = std::move(half);
    series.stride *= 2;
    series.seen = (std::ssize(series.readings) - 1) * series.stride + 1;
  }
}

DecayCount DecayCounter::counted(const SeriesId& id, const Series& series) const {
  DecayCount first = counted_from(0, id, series);
  if (first.status == DecayStatus::Counted || !first.decades || *first.decades < options_.least_decades()) return first;
  // What moves before the decay has set in is no decay: the latest half of the fall may decide, if the first readings
  // already held what stands still in it.
  const std::vector<Reading>& readings = series.readings;
  const double start = readings.front().log10_lambda.back();
  std::size_t begin = 0;
  for (const double onset : kOnsets) {
    const std::size_t before = begin;
    while (begin < readings.size() && readings[begin].log10_lambda.back() > start - onset * *first.decades) ++begin;
    if (begin == before) continue;
    DecayCount later = counted_from(begin, id, series);
    if (later.status == DecayStatus::Counted) return later;
  }
  return first;
}

/// The count on the readings from number `begin` on.
DecayCount DecayCounter::counted_from(std::size_t begin, const SeriesId& id, const Series& series) const {
  DecayCount result;
  result.series = id;
  const std::span readings = std::span(series.readings).subspan(begin);
  result.readings = std::ssize(readings);
  result.fixed_rank = series.fixed_rank;
  result.dead_before = series.dead_before;
  result.high = series.fixed_rank;
  if (readings.empty()) return result;
  result.first_step = readings.front().step;
  result.last_step = readings.back().step;
  if (result.readings < kMinDecayReadings) return result;

  const auto k = static_cast<std::size_t>(series.fixed_rank);
  const auto murky = std::find_if(readings.begin(), readings.end(), [&](const Reading& r) { return r.clear < k; });
  const std::span whole = readings.first(static_cast<std::size_t>(murky - readings.begin()));
  const auto track = [](std::size_t j, std::span<const Reading> part) {
    Values values;
    for (const Reading& reading : part) {
      if (reading.above > j) values.push_back(reading.log10_lambda[j]);
    }
    return values;
  };
  const Values x = track(k - 1, whole);
  if (std::ssize(x) >= kMinDecayReadings) result.decades = fall(x);
  const bool fitted = result.decades && *result.decades >= options_.least_decades();

  const std::size_t afloat = readings.back().above;
  std::int64_t undecided = 0;
  bool any_falls = false;
  std::vector<LineFit> rates;
  Values standing;
  bool largest_decays = afloat == 0;
  for (std::size_t j = 0; j < k; ++j) {
    bool dies = false, still = false;
    if (j >= afloat) {
      // Sunk, unless the floor came up to it or it hovered there from the start.
      Values all;
      for (const Reading& reading : readings) all.push_back(reading.log10_lambda[j]);
      dies = readings.front().clear > j && fall(all) > options_.least_decades();
      result.sunk += dies;
    }
    if (fitted) {
      const Values y = track(j, whole);
      const LineFit rate = fit_line(x, y, options_.confidence());
      still = rate.high < options_.least_rate();
      // A drift that passes for standing still has no rate, however straight it is.
      if (rate.low > options_.least_rate() && fall(y) > options_.still_decades() &&
          keeps_falling(x, y, options_.least_rate())) {
        rates.push_back(rate);
        dies = true;
      }
    }
    if (!dies && j < afloat) {
      const Values all = track(j, readings);
      any_falls = any_falls || (std::ssize(all) >= kMinDecayReadings && fall(all) > options_.still_decades());
      still = (still || !fitted) && moved(all) < options_.still_decades();
      if (still) standing.push_back(median(all));
    } else {
      still = false;
    }
    result.low += dies;
    undecided += !dies && !still;
    if (j == 0) largest_decays = dies;
  }
  result.high = result.low + undecided;
  result.groups = grouped(std::move(rates));
  if (fitted) {
    Values volume;
    for (const Reading& reading : whole) {
      volume.push_back(std::accumulate(reading.log10_lambda.begin(), reading.log10_lambda.end(), 0.0));
    }
    const LineFit ratio = fit_line(x, volume, options_.confidence());
    result.volume_ratio = ratio.slope;
    result.volume_ratio_low = ratio.low;
    result.volume_ratio_high = ratio.high;
  }

  const bool stands = result.decades && *result.decades < options_.still_decades();
  if (stands && result.low == 0 && !any_falls) {
    result.status = DecayStatus::NoDecay;
  } else if (largest_decays) {
    result.status = DecayStatus::MatrixDecays;
  } else if (undecided > 0 || (!fitted && result.sunk == 0) ||
             (begin > 0 && !interlaces(standing, series.readings.front().log10_lambda, options_.still_decades()))) {
    result.status = DecayStatus::Undecided;
  } else {
    result.status = DecayStatus::Counted;
    result.count = result.low;
  }
  return result;
}

std::vector<DecayCount> DecayCounter::counts() const {
  std::vector<DecayCount> result;
  for (const auto& [id, series] : series_) result.push_back(counted(id, series));
  return result;
}

DecayCount DecayCounter::count(const SeriesId& id) const {
  const auto known = series_.find(id);
  return counted(id, known == series_.end() ? Series() : known->second);
}

std::string DecayCount::statement() const {
  const std::string steps = fmt::format("steps {} to {}", first_step, last_step);
  const std::string before =
      dead_before > 0 ? fmt::format(" ({} dead at the first reading are not counted)", dead_before) : std::string();
  switch (status) {
    case DecayStatus::TooFewReadings:
      return fmt::format("no count: {} with a spectrum, {} are needed", plural(readings, "reading"), kMinDecayReadings);
    case DecayStatus::NoDecay:
      return fmt::format("nothing dies ({}): lambda_min+ of rank {} falls by {:.2g} decades{}", steps, fixed_rank,
                         decades.value_or(0), before);
    case DecayStatus::MatrixDecays:
      return fmt::format(
          "no count ({}): the largest eigenvalue decays as well, so it is the matrix that dies and not a direction of "
          "it",
          steps);
    case DecayStatus::Undecided:
      return fmt::format(
          "no count ({}): {} to {} of {} directions die; the others of these neither keep a rate nor stand still",
          steps, low, high, fixed_rank);
    case DecayStatus::Counted:
      break;
  }
  std::vector<std::string> parts;
  for (const RateGroup& group : groups) parts.push_back(fmt::format("{} at rate {:.2f}", group.directions, group.rate));
  if (sunk > 0) parts.push_back(fmt::format("{} sunk to the floor", sunk));
  std::string text =
      fmt::format("{} of {} directions die ({}): {}{}", *count, fixed_rank, steps, fmt::join(parts, ", "), before);
  if (volume_ratio) {
    text += fmt::format("; log det+ falls {:.2f} [{:.2f}, {:.2f}] times as fast as log lambda_min+", *volume_ratio,
                        *volume_ratio_low, *volume_ratio_high);
  }
  return text;
}

}  // namespace dds
