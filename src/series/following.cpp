#include "src/series/following.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "src/series/trend.hpp"

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kMostPlaces = 512;  // of a spectrum that is searched
constexpr std::size_t kMostMovers = 16;
constexpr std::size_t kLeastReach = 5;    // readings on either side of a crossing
constexpr double kClearGap = 12;          // times the noise of a gap, from one end of its line to the other
constexpr double kLeastGap = 0.02;        // decades
constexpr double kStraight = 0.7;         // of the squares that a parabola through the gap itself leaves
constexpr std::size_t kSample = 32;       // readings that a search starts with
constexpr std::size_t kStart = 3;         // readings whose mean stands for the start
constexpr double kBetter = 0.92;          // of what lines through the places leave
constexpr double kLeastFall = 0.4;        // decades
constexpr std::int64_t kLeastPassed = 3;  // others

/// The place whose removal leaves the reading nearest to `rest`, and what is left then.
struct Removal {
  std::size_t place = 0;
  double squares = 0;
};
Removal best_removal(const Values& reading, const Values& rest) {
  // From place q to the next, one term passes from "shifted by one" to "unshifted".
  double squares = 0;
  for (std::size_t j = 0; j < rest.size(); ++j) squares += std::pow(reading[j + 1] - rest[j], 2);
  Removal best{0, squares};
  for (std::size_t q = 0; q < rest.size(); ++q) {
    squares += std::pow(reading[q] - rest[q], 2) - std::pow(reading[q + 1] - rest[q], 2);
    if (squares < best.squares) best = {q + 1, squares};
  }
  return best;
}

Values without(const Values& reading, std::size_t place) {
  Values rest = reading;
  rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(place));
  return rest;
}

Values mean_of(const Courses& readings) {
  Values mean(readings.front().size(), 0.0);
  for (const Values& reading : readings) {
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += reading[j] / static_cast<double>(readings.size());
  }
  return mean;
}

/// The sum of squares that a line in the number of the reading leaves of each place.
double squares_of_lines(const Courses& readings) {
  const double n = static_cast<double>(readings.size()), centre = (n - 1) / 2;
  const Values mean = mean_of(readings);
  double total = 0;
  for (std::size_t j = 0; j < mean.size(); ++j) {
    double xx = 0, xy = 0, yy = 0;
    for (std::size_t i = 0; i < readings.size(); ++i) {
      const double x = static_cast<double>(i) - centre, y = readings[i][j] - mean[j];
      xx += x * x;
      xy += x * y;
      yy += y * y;
    }
    total += yy - xy * xy / xx;
  }
  return total;
}

/// The rest that the best first place of a mover leaves.
Values start_of_search(const Courses& readings) {
  const Values first = mean_of(Courses(readings.begin(), readings.begin() + kStart));
  const std::size_t stride = (readings.size() + kSample - 1) / kSample;
  Values best;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t place = 0; place < first.size(); ++place) {
    Values rest = without(first, place);
    double squares = 0;
    for (std::size_t i = 0; i < readings.size(); i += stride) squares += best_removal(readings[i], rest).squares;
    if (squares < least) {
      least = squares;
      best = std::move(rest);
    }
  }
  return best;
}

/// One direction taken out of the readings.
struct Split {
  Values course;  ///< of the mover
  Courses left;
};
Split split_by(const Courses& readings, const Values& rest) {
  Split result;
  for (const Values& reading : readings) {
    const std::size_t place = best_removal(reading, rest).place;
    result.course.push_back(reading[place]);
    result.left.push_back(without(reading, place));
  }
  return result;
}

/// Empty if no direction falls through the others.
std::optional<Split> find_mover(const Courses& readings) {
  constexpr int kRounds = 4;
  Split split = split_by(readings, start_of_search(readings));
  for (int round = 1; round < kRounds; ++round) split = split_by(readings, mean_of(split.left));
  const Values& course = split.course;
  const auto end = [&](std::ptrdiff_t from) {
    return std::accumulate(course.begin() + from, course.begin() + from + kStart, 0.0) / kStart;
  };
  const double fall = end(0) - end(std::ssize(course) - static_cast<std::ptrdiff_t>(kStart));
  const auto passed = std::count_if(split.left.front().begin(), split.left.front().end(),
                                    [&](double y) { return y < course.front() && y > course.back(); });
  if (passed < kLeastPassed || fall < kLeastFall + 4 * noise_of(course)) return std::nullopt;
  if (!(squares_of_lines(split.left) < kBetter * squares_of_lines(readings))) return std::nullopt;
  return split;
}

/// The line through values, and the squares that it and a parabola leave.
struct Fitted {
  double slope = 0, by_line = 0, by_parabola = 0;
};
Fitted fitted(std::span<const double> y) {
  const double n = static_cast<double>(y.size()), centre = (n - 1) / 2, spread = (n * n - 1) / 12;
  const double mean = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, xy = 0, yy = 0, qq = 0, qy = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double x = static_cast<double>(i) - centre, q = x * x - spread, z = y[i] - mean;
    xx += x * x;
    xy += x * z;
    yy += z * z;
    qq += q * q;
    qy += q * z;
  }
  const double by_line = yy - xy * xy / xx;
  return {xy / xx, by_line, by_line - qy * qy / qq};
}

/// What is left of a gap that closes and opens again at `at`, as one line through zero over `reach` readings on either
/// side. Empty if it is no such line: if the gap is clear of noise nowhere, or if it is bent as well as that.
std::optional<double> through_zero(const Values& gap, std::size_t at, std::size_t reach) {
  if (at < reach || at + reach > gap.size()) return std::nullopt;
  const auto begin = gap.begin() + static_cast<std::ptrdiff_t>(at - reach);
  const Values bent(begin, begin + static_cast<std::ptrdiff_t>(2 * reach));
  Values through = bent;
  for (std::size_t i = reach; i < through.size(); ++i) through[i] = -through[i];
  const Fitted line = fitted(through);
  const double fallen = -line.slope * static_cast<double>(through.size() - 1);
  if (!(fallen > kClearGap * std::max(kLeastGap, noise_of(bent)))) return std::nullopt;
  return line.by_line < kStraight * fitted(bent).by_parabola ? std::optional(line.by_line) : std::nullopt;
}

/// The readings at which the places j and j + 1 exchange their directions.
std::vector<std::size_t> crossings(const Courses& readings, std::size_t j) {
  Values gap;
  for (const Values& reading : readings) gap.push_back(reading[j] - reading[j + 1]);
  std::vector<std::size_t> result;
  for (std::size_t at = 1; at < gap.size(); ++at) {
    for (std::size_t reach = gap.size() / 2; reach >= kLeastReach; reach = reach * 2 / 3) {
      std::optional<double> least = through_zero(gap, at, reach);
      if (!least) continue;
      for (std::size_t later = at + 1; later < at + kLeastReach; ++later) {
        const std::optional<double> left = through_zero(gap, later, reach);
        if (!left || *left >= *least) continue;
        least = left;
        at = later;
      }
      result.push_back(at);
      at += reach - 1;  // two that cross are on one line for as far as was seen
      break;
    }
  }
  return result;
}

/// Finds the course of a mover anew, now that the others have been taken out as well.
void refine(Split& split) {
  Courses readings = split.left;
  for (std::size_t i = 0; i < readings.size(); ++i) {
    Values& reading = readings[i];
    reading.insert(std::upper_bound(reading.begin(), reading.end(), split.course[i], std::greater<>()),
                   split.course[i]);
  }
  split = split_by(readings, mean_of(split.left));
}

}  // namespace

void follow_movers(Courses& readings) {
  constexpr int kRefinements = 2;
  if (readings.size() < 2 * kStart || readings.front().size() > kMostPlaces) return;
  for (const Values& reading : readings) {
    if (!std::all_of(reading.begin(), reading.end(), [](double y) { return std::isfinite(y); })) return;
  }
  Courses left = readings;
  std::vector<Values> courses;
  while (left.front().size() > 2 && courses.size() < kMostMovers) {
    std::optional<Split> split = find_mover(left);
    if (!split) break;
    courses.push_back(std::move(split->course));
    left = std::move(split->left);
  }
  for (int round = 0; round < kRefinements && courses.size() > 1; ++round) {
    for (Values& course : courses) {
      Split split{std::move(course), std::move(left)};
      refine(split);
      course = std::move(split.course);
      left = std::move(split.left);
    }
  }
  std::sort(courses.begin(), courses.end(),
            [](const Values& a, const Values& b) { return a.front() - a.back() < b.front() - b.back(); });
  for (std::size_t i = 0; i < readings.size(); ++i) {
    readings[i] = left[i];
    for (const Values& course : courses) readings[i].push_back(course[i]);
  }
}

bool uncross(Courses& readings) {
  const std::size_t k = readings.front().size();
  std::vector<std::pair<std::size_t, std::size_t>> events;  // reading, place
  for (std::size_t j = 0; j + 1 < k; ++j) {
    for (const std::size_t at : crossings(readings, j)) events.emplace_back(at, j);
  }
  std::sort(events.begin(), events.end());
  std::vector<std::size_t> places(k);  // of the directions
  std::iota(places.begin(), places.end(), std::size_t{0});
  auto event = events.begin();
  for (std::size_t i = 0; i < readings.size(); ++i) {
    for (; event != events.end() && event->first == i; ++event) {
      const auto upper = std::find(places.begin(), places.end(), event->second);
      std::iter_swap(upper, std::find(places.begin(), places.end(), event->second + 1));
    }
    const Values sorted = readings[i];
    for (std::size_t d = 0; d < k; ++d) readings[i][d] = sorted[places[d]];
  }
  return !events.empty();
}

void put_last_what_falls_most(Courses& readings) {
  const Values &first = readings.front(), &last = readings.back();
  std::size_t most = first.size() - 1;
  for (std::size_t j = 0; j < first.size(); ++j) {
    if (first[j] - last[j] > first[most] - last[most]) most = j;
  }
  for (Values& reading : readings) {
    const auto place = reading.begin() + static_cast<std::ptrdiff_t>(most);
    std::rotate(place, place + 1, reading.end());
  }
}

std::vector<std::size_t> matched(const at::Tensor& before, const at::Tensor& now) {
  const double least = std::sqrt(0.5) + 1e-6;  // beyond rounding: no row has two such cosines
  const std::int64_t k = now.size(0);
  const at::Tensor cosines = before.mm(now.t()).abs().contiguous();
  const double* const cosine = cosines.data_ptr<double>();
  constexpr auto kNone = std::numeric_limits<std::size_t>::max();
  std::vector<std::size_t> result(static_cast<std::size_t>(k), kNone);
  std::vector<bool> taken(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      if (!(cosine[i * k + j] > least)) continue;  // at most one in each row and column
      result[static_cast<std::size_t>(i)] = static_cast<std::size_t>(j);
      taken[static_cast<std::size_t>(j)] = true;
    }
  }
  std::size_t free = 0;
  for (std::size_t& place : result) {
    if (place != kNone) continue;
    while (taken[free]) ++free;
    place = free++;
  }
  return result;
}

}  // namespace dds
