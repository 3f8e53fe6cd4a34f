#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <dds/decay.hpp>
#include <iterator>
#include <numeric>
#include <utility>

#include "src/base/check.hpp"
#include "src/series/decay_analysis.hpp"
#include "src/series/following.hpp"

namespace dds {
namespace {

constexpr double kClear = 10;  // times the floor: below, rounding noise bends the lines that are fitted
// Shares of the fall of lambda_min+ before which a count may begin: everything may move at the start of a training.
constexpr std::array kOnsets{0.0, 0.1, 0.2, 0.3, 0.4, 0.5};

void check_options(const DecayOptions& options) {
  constexpr auto kWho = "DecayOptions";
  check_between(kWho, "confidence", options.confidence(), 0, 1);
  check_between(kWho, "least_rate", options.least_rate(), 0, 1);
  check(options.least_decades() > 0, kWho, "least_decades", options.least_decades(), "a positive number");
  check(options.still_decades() > 0, kWho, "still_decades", options.still_decades(), "a positive number");
  check(options.first_step() <= options.last_step(), kWho, "first_step", options.first_step(),
        "at most last_step, which is {}", options.last_step());
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

DecayCounter::DecayCounter(DecayOptions options) : options_(options) { check_options(options_); }

void DecayCounter::Series::drop_last() {
  readings.pop_back();
  seen = (std::ssize(readings) - 1) * stride + 1;
}

void DecayCounter::Series::push(Reading reading) {
  if (!readings.empty() && (seen - 1) % stride != 0) readings.pop_back();
  readings.push_back(std::move(reading));
  ++seen;
  if (readings.size() <= kMaxDecayReadings) return;
  std::vector<Reading> half;
  for (std::size_t i = 0; i < readings.size(); i += 2) half.push_back(std::move(readings[i]));
  readings = std::move(half);
  stride *= 2;
  seen = (std::ssize(readings) - 1) * stride + 1;
}

void DecayCounter::add(const Signature& signature) {
  if (signature.step < options_.first_step() || signature.step > options_.last_step()) return;
  if (signature.spectrum.empty() || !signature.floor) return;
  if (signature.rank.value_or(0) == 0 || signature.rows.value_or(0) == 0) return;
  if (options_.relative() && !signature.log10_trace) return;
  Series& series = series_[series_of(signature)];
  // A resumed run repeats steps: the later reading counts.
  while (!series.readings.empty() && series.readings.back().step >= signature.step) series.drop_last();
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
  reading.log10_floor = 2 * std::log10(*signature.floor) + offset;
  for (std::size_t j = 0; j < k; ++j) {
    reading.log10_lambda.push_back(2 * std::log10(signature.spectrum[j]) + offset);
    reading.clear += signature.spectrum[j] > kClear * *signature.floor;
  }
  if (signature.axes.defined()) {
    reading.places = series.places_of(signature.axes.narrow(0, 0, series.fixed_rank));
  }
  series.push(std::move(reading));
}

/// The places of the directions in a reading with these axes, and remembers both.
std::vector<std::size_t> DecayCounter::Series::places_of(const at::Tensor& now) {
  std::vector<std::size_t> result(static_cast<std::size_t>(now.size(0)));
  if (axes.defined() && axes.sizes() == now.sizes()) {
    const std::vector<std::size_t> place = matched(axes, now);
    for (std::size_t d = 0; d < result.size(); ++d) result[d] = place[places[d]];
  } else {
    std::iota(result.begin(), result.end(), std::size_t{0});
  }
  axes = now;
  places = result;
  return result;
}

bool DecayCounter::Series::has_axes() const {
  return std::all_of(readings.begin(), readings.end(), [](const Reading& reading) { return !reading.places.empty(); });
}

std::optional<DecayCounter::Series> DecayCounter::Series::followed(Following by) const {
  if (by == Following::Axes && !has_axes()) return std::nullopt;
  Series result = *this;
  Courses courses;
  for (const Reading& reading : readings) {
    courses.push_back(reading.log10_lambda);
    for (std::size_t d = 0; by == Following::Axes && d < reading.places.size(); ++d) {
      courses.back()[d] = reading.log10_lambda[reading.places[d]];
    }
  }
  if (courses.empty()) return std::nullopt;
  if (by == Following::Movers) follow_movers(courses);
  if (by == Following::Crossings && !uncross(courses)) return std::nullopt;
  if (by != Following::Movers) put_last_what_falls_most(courses);
  for (std::size_t i = 0; i < courses.size(); ++i) result.readings[i].log10_lambda = std::move(courses[i]);
  return result;
}

DecayCount DecayCounter::counted(const SeriesId& id, const Series& series) const {
  DecayCount places = counted_late(id, series);
  if (places.status == DecayStatus::Counted || places.status == DecayStatus::TooFewReadings) return places;
  for (const Following by : {Following::Axes, Following::Crossings, Following::Movers}) {
    const bool nothing = places.status == DecayStatus::NoDecay;
    if (nothing && by == Following::Movers) continue;
    const std::optional<Series> directions = series.followed(by);
    if (!directions) continue;
    DecayCount count = counted_late(id, *directions);
    // A fall and a rise that cross leave every place where it was.
    if (count.status == DecayStatus::Counted || (nothing && count.low > 0)) return count;
  }
  return places;
}

DecayCount DecayCounter::counted_late(const SeriesId& id, const Series& series) const {
  const auto count_from = [&](std::size_t begin) { return Analysis(series, begin, options_).count(id); };
  DecayCount whole = count_from(0);
  if (whole.status == DecayStatus::Counted || !whole.decades || *whole.decades < options_.least_decades()) return whole;
  // What moves before the decay has set in is no decay: the count may begin later, by at most half of the fall.
  const std::vector<Reading>& readings = series.readings;
  const double start = readings.front().log10_lambda.back();
  std::size_t begin = 0;
  for (const double onset : kOnsets) {
    const std::size_t before = begin;
    while (begin < readings.size() && readings[begin].log10_lambda.back() > start - onset * *whole.decades) ++begin;
    if (begin == before) continue;
    DecayCount later = count_from(begin);
    if (later.status == DecayStatus::Counted) return later;
  }
  return whole;
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
