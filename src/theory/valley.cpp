#include "src/theory/valley.hpp"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

constexpr double kClearlyBelow = 0.9;  // of K on the line
constexpr int kProbes = 3;             // starts of one length
constexpr double kLeastPower = 1, kMostPower = 8;

/// A vector of this length in the complement, the same in every run. Its entries differ in size, so that no symmetry of
/// K maps it to itself. Empty if the complement is.
std::optional<at::Tensor> start_beside(const Complement& complement, const at::Tensor& like, int probe, double length) {
  const double stride = std::sqrt(2.0 + 3.0 * probe);
  at::Tensor v = at::zeros_like(like);
  double* const entries = v.data_ptr<double>();
  for (std::int64_t i = 0; i < v.numel(); ++i) {
    const double turns = static_cast<double>(i + 1) * stride;
    entries[i] = 2 * (turns - std::floor(turns)) - 1;
  }
  const double whole = v.norm().item<double>();
  v = complement.projected(v);
  const double norm = v.norm().item<double>();
  if (!(norm > 1e-8 * whole)) return std::nullopt;
  return v.mul(length / norm);
}

}  // namespace

Valley::Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, Start start,
               double first)
    : line_(line),
      landscape_(landscape),
      options_(options),
      floor_(floor),
      start_(start),
      complement_(landscape, line.direction),
      v_(at::zeros_like(line.direction)),
      last_(first) {}

OrderPoint Valley::at(double t) {
  const at::Tensor base = line_.at(t);
  const double distance = std::abs(t), ratio = distance / last_;
  const MinimumOptions options{options_.cone() * distance, options_.newton_steps(), floor_};
  OrderPoint point{t, landscape_.value(base), 0, 0};
  Minimum lowest = lowest_beside(complement_, base, v_.mul(std::pow(ratio, power_)), options);
  if (start_ == Start::Beside && !(lowest.value < kClearlyBelow * point.straight)) {
    if (std::optional<Minimum> found = escaped(base, point.straight, options)) lowest = *std::move(found);
  }
  point.followed = lowest.value;
  point.departure = lowest.v.norm().item<double>();
  if (const double before = v_.norm().item<double>(); start_ == Start::Beside && before > 0 && point.departure > 0) {
    power_ = std::clamp(std::log(point.departure / before) / std::log(ratio), kLeastPower, kMostPower);
  }
  v_ = lowest.v;
  last_ = distance;
  return point;
}

std::optional<Minimum> Valley::escaped(const at::Tensor& base, double straight, const MinimumOptions& options) const {
  for (const double share : {0.03, 0.3}) {
    for (int probe = 0; probe < kProbes; ++probe) {
      const auto start = start_beside(complement_, base, probe, share * options.radius);
      if (!start) return std::nullopt;
      Minimum found = lowest_from(complement_, base, *start, options);
      if (found.value < kClearlyBelow * straight) return found;
    }
  }
  return std::nullopt;
}

std::optional<double> descent_beside(const Line& line, Landscape& landscape, double radius, double least) {
  constexpr std::int64_t kSteps = 8;
  const Complement complement(landscape, line.direction);
  const auto start = start_beside(complement, line.point, 0, radius / 2);
  if (!start) return std::nullopt;
  const double lowest = lowest_from(complement, line.point, *start, {radius, kSteps, 0}).value;
  return lowest < least ? std::optional(lowest) : std::nullopt;
}

}  // namespace dds
