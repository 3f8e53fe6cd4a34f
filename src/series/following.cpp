#include "src/series/following.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>

#include "src/series/trend.hpp"

namespace dds {
namespace {

using Values = std::vector<double>;

constexpr std::size_t kMostPlaces = 512;  // of a spectrum that is searched
constexpr std::size_t kMostMovers = 16;
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
  const double least = std::sqrt(0.5);
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
