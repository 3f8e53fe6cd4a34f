// The local learning coefficient (LLC) of a model at its present weights w*, by stochastic gradient Langevin dynamics
// (Lau et al., arXiv:2308.12108):
//
//   lambda_hat = n beta (E[L_n(w)] - L_n(w*)),   w ~ exp(-n beta L_n(w) - gamma/2 |w - w*|^2)
//   w += -(eps/2) (n beta grad L_m(w) + gamma (w - w*)) + sqrt(eps) N(0, I)
//
// L_n is the mean over n samples of the likelihood's per-sample loss; beta = 1/log n unless told otherwise. What is
// reported is the *localised* lambda_hat(gamma, n beta), with an error bar and a verdict.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/model.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace dds {

enum class LlcKind {
  Plain,   ///< the published estimator
  Tilted,  ///< ours: samples L(w) - g.(w - w*), g the gradient at w*, and averages L(w) - L(w*) - g.(w - w*): the
           ///< complexity of the curvature alone, for points that are no minimum; not the published LLC
};

/// Settings of estimate_llc. The defaults calibrate themselves; what is set by hand is used as given.
struct LlcOptions {
  TORCH_ARG(LlcKind, kind) = LlcKind::Plain;
  /// Chains, each from w* with its own draws. R-hat needs at least two.
  TORCH_ARG(std::int64_t, chains) = 4;
  /// Draws kept per chain after burn-in, one each step; at least 20. 0 = 10 / (eps gamma), the time in which a
  /// direction held by the localisation alone forgets its past, ten times over; within 1000 to 20,000.
  TORCH_ARG(std::int64_t, draws) = 0;
  /// Steps per chain before the first draw that counts. -1 = 2 / (eps gamma), within 200 to 5000.
  TORCH_ARG(std::int64_t, burn_in) = -1;
  /// Samples per step, each drawn from all; 0 = all of them. n beta is from n, never from the batch size.
  TORCH_ARG(std::int64_t, batch_size) = 0;
  /// eps; 0 = `relative_step` / h_max, h_max = n beta mu_max + gamma, mu_max the largest curvature of L_n found by
  /// power iteration at w* and along a pilot chain.
  TORCH_ARG(double, step_size) = 0.0;
  /// c = eps h_max. On reduced-rank regression the estimate is 10 to 15 % too large at c = 1 before its discretisation
  /// is taken off and within 2 %, about the chains' error, after (see LlcEstimate::discretisation). With mini-batches
  /// of m samples it is held below 0.072 m / (n beta), see LlcEstimate::batch_noise.
  TORCH_ARG(double, relative_step) = 0.5;
  /// gamma; 0 = 0.03 sqrt(n beta) (DESIGN.md 6.3).
  TORCH_ARG(double, localization) = 0.0;
  /// n beta; 0 = n / log n.
  TORCH_ARG(double, n_beta) = 0.0;
  /// The verdict's bound of |w - w*| / |w*|. A chain further off than the weights are long no longer sees the loss
  /// around w*, and gamma should be larger; infinity for landscapes known to be the same everywhere.
  TORCH_ARG(double, max_relative_distance) = 1.0;
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

/// The bounds that an estimate is held against, all in one place.
struct LlcBounds {
  static constexpr double kRHat = 1.05;
  static constexpr double kEss = 100;
  static constexpr double kRelativeError = 0.05;   ///< standard_error / lambda
  static constexpr double kDrift = 4;              ///< |drift|, in standard errors
  static constexpr double kBelowBaseline = 0.1;    ///< full batch only: a mini-batch's loss is noise around its mean
  static constexpr double kDescent = 0.1;          ///< descent / lambda, plain kind: its bias is up to that much
  static constexpr double kDiscretisation = 0.15;  ///< |discretisation| / lambda
  static constexpr double kDistanceRHat = 1.2;
  static constexpr double kAcceptance = 0.5;  ///< at least
  static constexpr double kBatchNoise = 0.02;
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

  std::optional<double> r_hat;  ///< split R-hat of the loss over the chains (Vehtari et al. 2021)
  std::optional<double> ess;    ///< effective sample size of the loss, all chains together
  std::optional<double>
      acceptance;  ///< mean acceptance of the step as a Metropolis proposal (same batch), one step in 50
  /// What the finite step adds to n beta E[L(w) - L(w*)], estimated along the chains, and taken off `lambda`: the mean
  /// of (eps/8) grad(n beta L) . grad U, U = n beta L + gamma/2 |w - w*|^2. Exact on a quadratic loss whatever eps, and
  /// to first order for the noise of mini-batch gradients; on other losses what is left is of the order of its square.
  std::optional<double> discretisation;
  std::optional<double> drift;              ///< Geweke: first fifth against last half of the draws, in standard errors
  std::optional<double> below_baseline;     ///< share of the draws whose loss is below that at w*
  std::optional<double> distance;           ///< root mean square of |w - w*| over the draws
  std::optional<double> relative_distance;  ///< the same divided by |w*|
  std::optional<double> distance_r_hat;     ///< split R-hat of |w - w*|^2: it is slower than the loss
  std::optional<double> distance_drift;     ///< Geweke's drift of |w - w*|^2
  /// Upper bound of A = (n beta)^2 g^T (n beta H + gamma)^-1 g, g and H the gradient and Hessian at w*, at most
  /// (n beta |g|)^2 / gamma: small against lambda where w* is a minimum. The plain estimate is too small by A/2 to A.
  std::optional<double> descent;
  /// eps h_max n beta / (4 m): the heat of the noise of mini-batches of m, as a share of lambda. Full batch: empty.
  std::optional<double> batch_noise;

  double n_beta = 0;
  double gamma = 0;
  double resolution = 0;  ///< gamma / (n beta): the curvature below which a direction hardly counts
  double step_size = 0;
  double relaxation = 0;  ///< 2 / (eps gamma): steps in which a direction held by gamma alone relaxes
  double mu_max = 0;      ///< largest curvature of L_n that was found
  double baseline = 0;    ///< L_n(w*) over the chain's data
  std::int64_t samples = 0;
  std::int64_t parameters = 0;  ///< dimension of the chain
  std::int64_t batch_size = 0;
  std::int64_t chains = 0;
  std::int64_t diverged = 0;  ///< chains that left the finite numbers
  std::int64_t draws = 0;     ///< per chain, fewer than asked for where time ran out
  std::int64_t burn_in = 0;
  std::int64_t gradients = 0;  ///< forward and backward passes spent, calibration included
  std::uint64_t seed = 0;
  std::string replicas;  ///< how the chains got their models: "clone", "factory" or "in turn"
  double seconds = 0;
};

/// Estimates the LLC of `model` at its present weights over `data`. Runs in eval mode, in the model's own dtype and on
/// its own device; leaves mode, weights, buffers, gradients and the default generator as they were, and no recorder
/// sees it. Not while another thread trains the model. Throws InvalidArgument for a model without parameters, data
/// without targets, fewer samples than a batch, or options out of range; a chain that diverges is a verdict, not an
/// exception.
LlcEstimate estimate_llc(torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& data,
                         const Forward& forward, const LlcOptions& options = {});

template <class Model>
LlcEstimate estimate_llc(Model& model, const LikelihoodPtr& likelihood, const Data& data,
                         const LlcOptions& options = {}) {
  return estimate_llc(model, likelihood, data, forward_of<Model>(), options);
}

}  // namespace dds
