// The local learning coefficient (LLC) of a model at its present weights w*, by stochastic gradient Langevin dynamics
// (Lau et al., arXiv:2308.12108):
//
//   lambda_hat = n beta (E[L_n(w)] - L_n(w*)),   w ~ exp(-n beta L_n(w) - gamma/2 |w - w*|^2)
//   w += -(eps/2) (n beta grad L_m(w) + gamma (w - w*)) + sqrt(eps) N(0, I)
//
// L_n is the mean over n samples of the likelihood's per-sample loss; beta = 1/log n unless told otherwise. What is
// reported is the *localised* lambda_hat(gamma, n beta), with an error bar and a verdict.
#pragma once

#include <dds/model.hpp>

#include <torch/arg.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dds {

enum class LlcKind {
  Plain,   ///< the published estimator
  Tilted,  ///< ours: samples L(w) - g.(w - w*), g the gradient at w*, and averages L(w) - L(w*) - g.(w - w*): the complexity
           ///< of the curvature alone, for points that are no minimum; not the published LLC
};

/// Settings of estimate_llc. The defaults calibrate themselves; what is set by hand is used as given.
struct LlcOptions {
  TORCH_ARG(LlcKind, kind) = LlcKind::Plain;
  /// Chains, each from w* with its own draws. R-hat needs at least two.
  TORCH_ARG(std::int64_t, chains) = 4;
  /// Draws kept per chain, after burn-in; at least 16.
  TORCH_ARG(std::int64_t, draws) = 1000;
  /// Steps per chain before the first draw that counts.
  TORCH_ARG(std::int64_t, burn_in) = 500;
  /// Samples per step; 0 = all of them. n beta is from n, never from the batch size.
  TORCH_ARG(std::int64_t, batch_size) = 0;
  /// eps; 0 = `relative_step` / h_max, h_max = n beta mu_max + gamma, mu_max the largest curvature of L_n found by power
  /// iteration at w* and along a pilot chain.
  TORCH_ARG(double, step_size) = 0.0;
  TORCH_ARG(double, relative_step) = 0.1;
  /// gamma; 0 = 0.03 sqrt(n beta) (DESIGN.md 6.3).
  TORCH_ARG(double, localization) = 0.0;
  /// n beta; 0 = n / log n.
  TORCH_ARG(double, n_beta) = 0.0;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Chains that run at a time, one thread each; 0 = the machine's cores. The result does not depend on it.
  TORCH_ARG(std::int64_t, threads) = 0;
  /// Stop after so many seconds with what there is (the verdict then says so); 0 = no limit.
  TORCH_ARG(double, max_seconds) = 0.0;
  /// Makes a model of the same shape, for models that torch::nn::Cloneable does not cover. Parameters and buffers are
  /// copied into it by name.
  TORCH_ARG(std::function<std::shared_ptr<torch::nn::Module>()>, factory) = nullptr;
  /// Called now and then from one thread at a time with the share of all steps done, 0 to 1.
  TORCH_ARG(std::function<void(double)>, progress) = nullptr;
};

/// An estimate, how it was made, and whether it can be believed. There is no lambda without a verdict.
struct LlcEstimate {
  std::int64_t step = 0;  ///< training step that it belongs to; the caller's to fill in
  LlcKind kind = LlcKind::Plain;

  std::optional<double> lambda;          ///< lambda_hat(gamma, n beta); empty where the chains gave no finite number
  std::optional<double> standard_error;  ///< Monte Carlo error of the mean over all draws, baseline included

  /// Empty: converged. Otherwise what failed, one word each with its number, such as "r_hat 1.31 > 1.05".
  std::vector<std::string> failures;
  bool converged() const { return failures.empty(); }
  /// "converged", or the failures joined by "; ".
  std::string verdict() const;

  std::optional<double> r_hat;       ///< split R-hat of the loss over the chains (Vehtari et al. 2021)
  std::optional<double> ess;         ///< effective sample size of the loss, all chains together
  std::optional<double> acceptance;  ///< mean acceptance of the step as a Metropolis proposal
  std::optional<double> drift;       ///< Geweke: first fifth against last half of the draws, in standard errors
  std::optional<double> below_baseline;  ///< share of the draws whose loss is below that at w*
  std::optional<double> distance;        ///< root mean square of |w - w*| over the draws
  std::optional<double> relative_distance;  ///< the same divided by |w*|
  std::optional<double> distance_r_hat;     ///< split R-hat of |w - w*|^2: it is slower than the loss
  std::optional<double> descent;     ///< (n beta |grad L(w*)|)^2 / gamma: small against lambda where w* is a minimum

  double n_beta = 0;
  double gamma = 0;
  double resolution = 0;   ///< gamma / (n beta): the curvature below which a direction hardly counts
  double step_size = 0;
  double mu_max = 0;       ///< largest curvature of L_n that was found; 0 where step_size was given
  double baseline = 0;     ///< L_n(w*) over the chain's data
  std::int64_t samples = 0;
  std::int64_t parameters = 0;  ///< dimension of the chain
  std::int64_t batch_size = 0;
  std::int64_t chains = 0;
  std::int64_t draws = 0;
  std::int64_t burn_in = 0;
  std::int64_t gradients = 0;  ///< forward and backward passes spent, calibration included
  std::uint64_t seed = 0;
  std::string replicas;        ///< how the chains got their models: "clone", "factory" or "in turn"
  double seconds = 0;
};

/// Estimates the LLC of `model` at its present weights over `data`. Runs in eval mode, in the model's own dtype and on its
/// own device; leaves mode, weights, buffers, gradients and the default generator as they were. Not while another thread
/// trains the model.
/// Throws InvalidArgument for a model without parameters, data without targets, fewer samples than a batch, or options out
/// of range; a chain that diverges is a verdict, not an exception.
LlcEstimate estimate_llc(torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& data, const Forward& forward,
                         const LlcOptions& options = {});

template <class Model>
LlcEstimate estimate_llc(Model& model, const LikelihoodPtr& likelihood, const Data& data, const LlcOptions& options = {}) {
  return estimate_llc(model, likelihood, data, forward_of<Model>(), options);
}

}  // namespace dds
