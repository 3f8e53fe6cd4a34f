#include <algorithm>
#include <dds/learning_coefficient.hpp>
#include <string_view>
#include <vector>

#include "src/base/check.hpp"

namespace dds {
namespace {

constexpr std::int64_t kLargest = 1 << 20;  // of a width or an exponent: products of two, times 1000^2, fit 64 bits
constexpr std::size_t kMostWidths = 1001;

void check_widths(std::string_view function, std::span<const std::int64_t> widths, std::int64_t rank) {
  for (std::size_t i = 0; i < widths.size(); ++i) {
    check_within(function, fmt::format("width {}", i), widths[i], 1, kLargest);
  }
  const std::int64_t smallest = *std::min_element(widths.begin(), widths.end());
  check(rank >= 0 && rank <= smallest, function, "rank", rank, "0 to the smallest width, which is {}", smallest);
}

/// Every lambda here is a multiple of 1/2 and below 2^52.
LearningCoefficient from_halves(std::int64_t twice_lambda, std::int64_t multiplicity) {
  return {static_cast<double>(twice_lambda) / 2, multiplicity};
}

}  // namespace

LearningCoefficient regular_coefficient(std::int64_t parameters) {
  check_at_least("regular_coefficient", "parameters", parameters, 0);
  return {static_cast<double>(parameters) / 2, 1};
}

LearningCoefficient normal_crossing_coefficient(std::span<const std::int64_t> k, std::span<const std::int64_t> h) {
  constexpr auto kWho = "normal_crossing_coefficient";
  if (!h.empty()) check_as_many(kWho, "h", h.size(), "k", k.size());
  // The smallest (h_i + 1) / (2 k_i) so far.
  std::int64_t numerator = 0, denominator = 0, attained = 0;
  for (std::size_t i = 0; i < k.size(); ++i) {
    const std::int64_t jacobian = h.empty() ? 0 : h[i];
    check_within(kWho, fmt::format("k[{}]", i), k[i], 0, kLargest);
    check_within(kWho, fmt::format("h[{}]", i), jacobian, 0, kLargest);
    if (k[i] == 0) continue;
    const std::int64_t difference = attained == 0 ? -1 : (jacobian + 1) * denominator - numerator * 2 * k[i];
    if (difference > 0) continue;
    attained = difference < 0 ? 1 : attained + 1;
    numerator = jacobian + 1;
    denominator = 2 * k[i];
  }
  check(attained > 0, kWho, "every k", 0, "at least one that is not");
  return {static_cast<double>(numerator) / static_cast<double>(denominator), attained};
}

ReducedRankCase reduced_rank_case(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, std::int64_t rank) {
  const std::int64_t widths[] = {inputs, hidden, outputs};
  check_widths("reduced_rank_case", widths, rank);
  if (inputs + hidden < outputs + rank) return ReducedRankCase::WideOutput;
  if (outputs + hidden < inputs + rank) return ReducedRankCase::WideInput;
  if (inputs + outputs < hidden + rank) return ReducedRankCase::WideHidden;
  return ReducedRankCase::Balanced;
}

LearningCoefficient reduced_rank_coefficient(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs,
                                             std::int64_t rank) {
  const std::int64_t m = inputs, h = hidden, n = outputs, r = rank;
  switch (reduced_rank_case(m, h, n, r)) {
    case ReducedRankCase::WideOutput:
      return from_halves(h * m - h * r + n * r, 1);
    case ReducedRankCase::WideInput:
      return from_halves(h * n - h * r + m * r, 1);
    case ReducedRankCase::WideHidden:
      return from_halves(m * n, 1);
    case ReducedRankCase::Balanced:
      break;
  }
  const std::int64_t odd = (m + h + n + r) % 2;
  // (4 M N - (M + N - H - r)^2 + odd) / 4, which is the numerator of the table over 4.
  return from_halves((2 * (h + r) * (m + n) - (m - n) * (m - n) - (h + r) * (h + r) + odd) / 4, 1 + odd);
}

LearningCoefficient deep_linear_coefficient(std::span<const std::int64_t> widths, std::int64_t rank) {
  constexpr auto kWho = "deep_linear_coefficient";
  check_within(kWho, "the number of widths", widths.size(), 2, kMostWidths);
  check_widths(kWho, widths, rank);
  std::vector<std::int64_t> d(widths.begin(), widths.end());
  for (std::int64_t& width : d) width -= rank;
  std::sort(d.begin(), d.end());

  // S >= l * (its last) holds for two, and whenever S >= l * (the next) lets that one in.
  std::int64_t l = 1, sum = d[0] + d[1], pairs = d[0] * d[1];
  for (std::size_t i = 2; i < d.size() && sum >= l * d[i]; ++i, ++l) {
    pairs += sum * d[i];
    sum += d[i];
  }
  const std::int64_t below = (sum + l - 1) / l - 1;  // K - 1
  const std::int64_t a = sum - below * l;
  // Twice a (l - a) / (4 l) - (l - 1) S^2 / (4 l), with S = a + (K - 1) l put in: the division by l is then done.
  const std::int64_t between = (a - a * a - (l - 1) * below * (2 * a + below * l)) / 2;
  return from_halves(rank * (widths.front() + widths.back() - rank) + between + pairs, a * (l - a) + 1);
}

}  // namespace dds
