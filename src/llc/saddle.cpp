#include "src/llc/saddle.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <vector>

namespace dds {
namespace {

/// n beta |curvature| below this share of gamma is not looked at: it takes at most 0.005 off lambda.
constexpr double kShareOfGamma = 0.01;
constexpr int kSearches = 3;
constexpr std::size_t kMostDirections = 12;
constexpr double kBeyond = 8;  // above the least U: exp(-8) of its density
constexpr int kMostDoublings = 8, kMostHalvings = 20;
constexpr int kPoints = 16;  // on each side

/// Directions that are none on all samples before the search among those of a few samples ends.
constexpr int kMostMistaken = 3;

/// E[c(t)] under exp(-U(t)), U = c(t) + gamma/2 t^2, by the trapezoid rule over all t that count. c(0) = 0.
double mean_along(const std::function<double(double)>& c, double gamma) {
  const auto energy = [gamma](double t, double value) {
    return std::isfinite(value) ? value + gamma / 2 * t * t : INFINITY;
  };
  double least = 0;
  const auto is_beyond = [&](double t) {
    const std::array both = {energy(t, c(t)), energy(-t, c(-t))};
    const double lower = std::min(both[0], both[1]);
    least = std::min(least, lower);
    return lower > least + kBeyond;
  };
  double reach = 4 / std::sqrt(gamma);
  if (is_beyond(reach)) {
    for (int i = 0; i < kMostHalvings && is_beyond(reach / 2); ++i) reach /= 2;
  } else {
    for (int i = 0; i < kMostDoublings && !is_beyond(reach); ++i) reach *= 2;
  }
  std::array<double, 2 * kPoints + 1> values{}, energies{};
  for (int i = 0; i <= 2 * kPoints; ++i) {
    const double t = reach * (i - kPoints) / kPoints;
    const auto at = static_cast<std::size_t>(i);
    values[at] = i == kPoints ? 0 : c(t);
    energies[at] = energy(t, values[at]);
    least = std::min(least, energies[at]);
  }
  double mass = 0, sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double weight = std::exp(least - energies[i]);
    mass += weight;
    if (weight > 0) sum += weight * values[i];
  }
  return sum / mass;
}

/// The same from c(t) + c(-t) at one t, where the curvature h of c is above -gamma/2, so that gamma holds the
/// direction:
///   h / (2 (h + gamma))
/// Empty elsewhere, where more of c counts. `curvature`: about that of c, for the choice of t.
std::optional<double> mean_by_curvature(const std::function<double(double)>& c, double curvature, double gamma) {
  const double t = std::sqrt(1 / (2 * std::max(-curvature, gamma)));
  const double h = (c(t) + c(-t)) / (t * t);
  return h > -gamma / 2 ? std::optional(h / (2 * (h + gamma))) : std::nullopt;
}

}  // namespace

Saddle find_saddle(CurvatureProbe& probe, const Objective& objective, const Replica& replica, double n_beta,
                   double gamma, const std::function<bool()>& stop) {
  Saddle saddle;
  const auto& start = objective.start();
  std::vector<at::Tensor> known;
  bool counts = true;
  int mistaken = 0;
  for (int search = 0; search < kSearches && counts; ++search) {
    counts = false;
    replica.weights().copy_(start);
    for (const auto& [curvature, v] : probe.negative(replica, known, stop)) {
      saddle.curvature = std::min(saddle.curvature, curvature);
      if (n_beta * -curvature < kShareOfGamma * gamma || known.size() == kMostDirections || stop()) break;
      known.push_back(v);
      const double slope = at::dot(objective.start_gradient(), v).item<double>();
      const auto c = [&, &v = v](double t) {
        replica.weights().copy_(start).add_(v, t);
        saddle.passes += objective.start_passes();
        return n_beta * (objective.excess(replica) - t * slope);
      };
      const auto seen = objective.full_batch() ? std::nullopt : mean_by_curvature(c, n_beta * curvature, gamma);
      if (seen && *seen >= 0) {
        // The probe has a few samples, on which more directions are negative than on all.
        if (++mistaken == kMostMistaken) break;
        continue;
      }
      const double mean = seen ? *seen : mean_along(c, gamma);
      saddle.taken_off += std::max(0.0, -mean);
      counts = counts || mean < 0;
    }
  }
  replica.weights().copy_(start);
  return saddle;
}

}  // namespace dds
