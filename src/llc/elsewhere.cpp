#include "src/llc/elsewhere.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_slogdet.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

namespace dds {
namespace {

constexpr int kDraws = 128;
/// The tail of F begins above all but one in so many draws of the chains.
constexpr std::size_t kTail = 100;
constexpr double kErrors = 2;  // that what is found must exceed
/// Draws per weight from which their whole covariance is known; with fewer, its diagonal stands for it, whose entropy
/// is larger.
constexpr std::int64_t kDrawsPerWeight = 5;

/// log det(gamma C), C the covariance of the rows.
double log_volume(const at::Tensor& rows, double gamma) {
  const auto centred = rows - rows.mean(0);
  const auto count = centred.size(0), d = centred.size(1);
  const double scale = gamma / static_cast<double>(count - 1);
  if (count < kDrawsPerWeight * d) return (centred * centred).sum(0).mul(scale).log().sum().item<double>();
  const double log_determinant = std::get<1>(at::linalg_slogdet(at::mm(centred.t(), centred) * scale)).item<double>();
  // The determinant of a sample's covariance is too small, by half of this.
  return log_determinant + static_cast<double>(d * (d + 1)) / static_cast<double>(count);
}

/// F above which all but one in kTail draws do not come.
double tail_from(const diagnostics::Traces& traces) {
  std::vector<double> draws;
  for (const auto& chain : traces) draws.insert(draws.end(), chain.begin(), chain.end());
  const auto place = draws.end() - 1 - static_cast<std::ptrdiff_t>(draws.size() / kTail);
  std::nth_element(draws.begin(), place, draws.end());
  return *place;
}

/// What the draws with F >= `from` add to the mean of F - lambda.
double part_above(const diagnostics::Traces& traces, double from, double lambda) {
  diagnostics::Traces parts = traces;
  for (auto& chain : parts) {
    for (double& f : chain) f = f >= from ? f - lambda : 0;
  }
  return diagnostics::mean(parts);
}

class Look {
 public:
  Look(const Objective& objective, const Replica& replica, const Stage& stage, double n_beta)
      : objective_(objective), replica_(replica), stage_(stage), n_beta_(n_beta) {}

  double f(const at::Tensor& weights) {
    passes_ += objective_.start_passes();
    replica_.weights().copy_(weights);
    return n_beta_ * objective_.excess(replica_);
  }

  /// An upper bound of log E_0[exp(-F); F <= from], by the draws of the chains that are there.
  double bound_below(const at::Tensor& draws, double from) {
    std::vector<at::Tensor> rows;
    double sum = 0;
    for (std::int64_t i = 0; i < draws.size(0); ++i) {
      const double value = f(draws[i]);
      if (!(value <= from)) continue;
      sum += value;
      rows.push_back((draws[i] - objective_.start()).to(at::kDouble));
    }
    if (rows.size() < 2) return std::numeric_limits<double>::infinity();
    const auto offsets = at::stack(rows);
    const auto count = static_cast<double>(rows.size()), d = static_cast<double>(offsets.size(1));
    const double energy = (sum + stage_.gamma / 2 * offsets.square().sum().item<double>()) / count;
    // Of chains on their way to their distance, directions that are held by gamma alone have too little variance.
    const double ratio = std::min(1.0, stage_.distance_ratio.value_or(1));
    const double held = std::min(d, stage_.gamma * *stage_.mean_distance / ratio);
    return (log_volume(offsets, stage_.gamma) + d - held * std::log(ratio)) / 2 - energy;
  }

  std::int64_t passes() const { return passes_; }

 private:
  const Objective& objective_;
  const Replica& replica_;
  const Stage& stage_;
  double n_beta_;
  std::int64_t passes_ = 0;
};

}  // namespace

Elsewhere look_elsewhere(const Objective& objective, const Replica& replica, const Stage& stage,
                         const at::Tensor& weights, double n_beta, double reach, at::Generator generator,
                         const std::function<bool()>& stop) {
  Look look(objective, replica, stage, n_beta);
  const double lambda = *stage.lambda, from = tail_from(stage.trace);
  auto offset = at::empty_like(objective.start());
  double below = 0, above = 0, sum = 0, squares = 0, lowest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kDraws && !stop(); ++i) {
    offset.normal_(0, 1 / std::sqrt(stage.gamma), generator);
    if (offset.norm().item<double>() > reach) continue;
    const double f = look.f(objective.start() + offset);
    if (!std::isfinite(f)) continue;
    const double mass = std::exp(-f) / kDraws, part = mass * (f - lambda);
    (f > from ? above : below) += mass;
    if (f <= from) continue;
    sum += part;
    squares += part * part;
    lowest = std::min(lowest, f);
  }
  const double surely = sum - kErrors * std::sqrt(std::max(0.0, squares - sum * sum / kDraws));
  if (!(surely > 0)) return {0, look.passes()};
  const double whole = above + std::max(below, std::exp(look.bound_below(weights, from)));
  const double gain = surely / whole - part_above(stage.trace, lowest, lambda);
  return {std::max(0.0, gain), look.passes()};
}

}  // namespace dds
