#include "src/llc/step_rule.hpp"

#include <algorithm>
#include <cmath>

namespace dds {
namespace {

/// The automatic step on mini-batches uses up this much of the bound of their noise: of one that is computed, and of
/// one that is measured.
constexpr double kBatchNoiseAim = 0.9 * LlcBounds::kBatchNoise;
constexpr double kMeasuredNoiseAim = 0.7 * LlcBounds::kBatchNoise;
constexpr double kAcceptanceAim = 0.8;
constexpr double kLongestMetropolisStep = 2.5;  // times h_max

}  // namespace

StepRule::StepRule(const LlcOptions& options, double n_beta, std::optional<std::int64_t> mini_batch)
    : given_(options.step_size()),
      calibration_relative_(options.relative_step()),
      relative_(options.relative_step()),
      n_beta_(n_beta) {
  if (mini_batch && !options.control_variates())
    relative_ = std::min(relative_, kBatchNoiseAim * 4 * static_cast<double>(*mini_batch) / n_beta);
}

void StepRule::see(double mu) {
  if (std::isfinite(mu)) mu_max_ = std::max(mu_max_, mu);
}

void StepRule::see_noise(double heat_by_eps, double lambda) {
  if (heat_by_eps > 0 && lambda > 0) quiet_ = kMeasuredNoiseAim * lambda / heat_by_eps;
}

void StepRule::precondition(double largest) {
  largest_ = largest;
  forget();
}

StepAdaptation::StepAdaptation(double eps, bool again) : log_eps_(std::log(eps)), gain_(again ? 2.0 : 4.0) {}

double StepAdaptation::after(int block, double acceptance, double h_max) {
  const double gain = gain_ / std::sqrt(1.0 + block);
  log_eps_ = std::min(log_eps_ + gain * (acceptance - kAcceptanceAim), std::log(kLongestMetropolisStep / h_max));
  if (2 * block >= kBlocks) {
    sum_ += log_eps_;
    ++summed_;
  }
  return std::exp(log_eps_);
}

std::optional<double> StepAdaptation::mean(double h_max) const {
  if (summed_ == 0) return std::nullopt;
  return std::min(std::exp(sum_ / summed_), kLongestMetropolisStep / h_max);
}

}  // namespace dds
