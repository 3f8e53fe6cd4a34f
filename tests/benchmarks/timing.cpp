#include "tests/benchmarks/timing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <vector>

#include "src/base/stopwatch.hpp"

namespace dds::benchmarks {
namespace {

double seconds_of(const std::function<void()>& work, std::int64_t times) {
  const Stopwatch watch;
  for (std::int64_t i = 0; i < times; ++i) work();
  return watch.seconds() / static_cast<double>(times);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

}  // namespace

Ratio compare(const std::function<void()>& a, const std::function<void()>& b, std::int64_t pairs) {
  constexpr double kShortest = 0.01;
  const auto times_of = [](const std::function<void()>& work) {
    work();  // warm-up
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(kShortest / seconds_of(work, 1)) + 1);
  };
  const std::int64_t times = std::min(times_of(a), times_of(b));
  std::vector<double> ratios, seconds_a, seconds_b;
  for (std::int64_t i = 0; i < pairs; ++i) {
    double first = 0, second = 0;
    if (i % 2 == 0) {
      first = seconds_of(a, times);
      second = seconds_of(b, times);
    } else {
      second = seconds_of(b, times);
      first = seconds_of(a, times);
    }
    seconds_a.push_back(first);
    seconds_b.push_back(second);
    ratios.push_back(second / first);
  }
  std::mt19937_64 engine(0);
  std::uniform_int_distribution<std::size_t> pick(0, ratios.size() - 1);
  std::vector<double> medians;
  for (int i = 0; i < 2000; ++i) {
    std::vector<double> sample;
    for (std::size_t k = 0; k < ratios.size(); ++k) sample.push_back(ratios[pick(engine)]);
    medians.push_back(median(std::move(sample)));
  }
  std::sort(medians.begin(), medians.end());
  return {median(ratios), medians[49], medians[1949], median(seconds_a), median(seconds_b)};
}

Results::Results(const experiments::RunOptions& options)
    : summary_(options), table_(options.out / (options.experiment + ".csv")) {
  table_ << "id,median,low,high,seconds_bare,seconds_with\n";
}

void Results::record(experiments::Claim claim, const Ratio& ratio) {
  claim.statement += fmt::format(": {:.3g} ms against {:.3g} ms", 1e3 * ratio.seconds_b, 1e3 * ratio.seconds_a);
  claim.measured = ratio.median;
  claim.low = ratio.low;
  claim.high = ratio.high;
  table_ << fmt::format("{},{},{},{},{},{}\n", claim.id, ratio.median, ratio.low, ratio.high, ratio.seconds_a,
                        ratio.seconds_b)
         << std::flush;
  summary_.add(std::move(claim));
}

void Results::add(const std::string& id, const std::string& statement, const Ratio& ratio, std::optional<double> goal) {
  constexpr double kWidest = 0.04;
  const bool decides = ratio.high - ratio.low <= kWidest;
  experiments::Claim claim;
  claim.id = id;
  claim.statement = statement;
  if (goal && !decides) claim.statement += fmt::format(" (interval wider than {}: undecided)", kWidest);
  if (decides) claim.goal_high = goal;
  record(std::move(claim), ratio);
}

void Results::add_speedup(const std::string& id, const std::string& statement, const Ratio& ratio,
                          std::optional<double> goal) {
  experiments::Claim claim;
  claim.id = id;
  claim.statement = statement;
  claim.goal_low = goal;
  record(std::move(claim), ratio);
}

}  // namespace dds::benchmarks
