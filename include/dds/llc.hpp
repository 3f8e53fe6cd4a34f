// The local learning coefficient (LLC) of a model at its present weights w*, estimated by Langevin dynamics around them
// (Lau et al., arXiv:2308.12108):
//
//   lambda_hat = n beta (E[L_n(w)] - L_n(w*)),   w ~ exp(-n beta L_n(w) - gamma/2 |w - w*|^2)
//
// L_n is the mean of the likelihood's loss over n samples. beta is the inverse temperature: 1/log n unless it is given.
// gamma is the localisation: it holds the chains at w*. lambda_hat depends on both, so it is reported with them, with
// an error bar and with a verdict. The verdict of an estimate that did not converge names what failed.
//
// The defaults calibrate everything:
//   step     from h_max, the largest curvature of -log p, found by power iteration at w* and along the chains
//   sampler  MALA up to 1000 weights on all samples; averaged noise beyond; SGLD on mini-batches
//   gamma    divided by 4 until lambda_hat no longer moves; otherwise the verdict is "gamma_limited"
//   length   doubled until chains, error and distance from w* meet their bounds, or the budget ends
// The step of samplers that have a bias in it is checked against half the step.
//
// Definitions, formulas and what they rest on: src/docs/the_method.md.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <dds/ranks.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

/// Which loss the chains sample. g is the gradient of L_n at w*.
enum class LlcKind {
  Plain,   ///< L(w): the published estimator
  Tilted,  ///< L(w) - g.(w - w*): the curvature alone, for points that are no minimum. Ours, not the published LLC
};

/// "plain" or "tilted".
std::string_view to_string(LlcKind kind);
/// The inverse. Throws InvalidArgument for any other text.
LlcKind llc_kind_from_string(std::string_view text);

/// How chains move. xi is standard normal, U = n beta L_m(w) + gamma/2 |w - w*|^2, L_m the mean loss over the batch of
/// the step.
enum class Sampler {
  Automatic,      ///< MALA up to 1000 weights on all samples, AveragedNoise beyond, Sgld on mini-batches
  Sgld,           ///< w += -(eps/2) grad U + sqrt(eps) xi. The bias of its step is estimated and subtracted
  RmspropSgld,    ///< Sgld with eps P for eps, P = 1/sqrt(E[(grad U)^2]) fixed after the burn-in (pSGLD,
                  ///< arXiv:1512.07666)
  Mala,           ///< Sgld on all samples as a Metropolis proposal: no bias at any step size
  AveragedNoise,  ///< Sgld with the mean of two successive xi: no bias on a quadratic (Leimkuhler and Matthews 2013)
};

/// "automatic", "sgld", "rmsprop_sgld", "mala" or "averaged_noise".
std::string_view to_string(Sampler sampler);

/// Settings of estimate_llc. An empty optional leaves a setting to calibration, or sets no limit; a value is used as
/// given.
struct LlcOptions {
  TORCH_ARG(LlcKind, kind) = LlcKind::Plain;
  TORCH_ARG(Sampler, sampler) = Sampler::Automatic;
  /// Chains, each from w* with its own random numbers. At least 1; R-hat needs 2.
  TORCH_ARG(std::int64_t, chains) = 4;
  /// Draws of the weights kept per chain after the burn-in, one each step. At least 20; empty: as many as
  /// `target_error` takes. (ReadOptions::draws are draws of labels, a different thing.)
  TORCH_ARG(std::optional<std::int64_t>, draws) = std::nullopt;
  /// Steps per chain before the first draw, at each gamma. At least 0. Empty: 2/(eps gamma), at least 200, and at most
  /// 5000 or a quarter of the budget, whichever is more; half of it, at most a sixth, while gamma is searched for.
  TORCH_ARG(std::optional<std::int64_t>, burn_in) = std::nullopt;
  /// standard_error / lambda at which chains are long enough, where `draws` is empty. Between 0 and 1.
  TORCH_ARG(double, target_error) = 0.0075;
  /// Samples per step, drawn with replacement. At least 1; empty: all samples. n beta uses n, never the batch size.
  TORCH_ARG(std::optional<std::int64_t>, batch_size) = std::nullopt;
  /// eps, positive. Empty: `relative_step` / h_max with h_max = n beta mu_max + gamma, mu_max the largest curvature of
  /// L_n that was found. For MALA the search for an acceptance of 0.8 starts there.
  TORCH_ARG(std::optional<double>, step_size) = std::nullopt;
  /// c = eps h_max, between 0 and 2. With mini-batches of m samples at most 0.072 m / (n beta): see
  /// LlcDiagnostics::batch_noise.
  TORCH_ARG(double, relative_step) = 0.5;
  /// gamma, positive. Empty: searched for, in steps of 4, around 0.03 sqrt(n beta) (src/docs/the_method.md).
  TORCH_ARG(std::optional<double>, gamma) = std::nullopt;
  /// n beta, positive. Empty: n / log n, which needs two samples.
  TORCH_ARG(std::optional<double>, n_beta) = std::nullopt;
  /// Chains stay within |w_i - w*_i| <= box for every weight i. Positive; empty: no box.
  TORCH_ARG(std::optional<double>, box) = std::nullopt;
  /// Glob patterns ('*' any text, '?' one character) on the full names of the parameters that move. Parameters that do
  /// not require grad never move. A part of the parameters gives the refined LLC of that part.
  TORCH_ARG(std::vector<std::string>, parameters) = {"*"};
  /// Sample in fp64 copies of weights, buffers and floating-point data. False, the default: in the model's own dtype,
  /// since a chain's own noise is far above the rounding of fp32. (ReadOptions::fp64 is true by default: a reading
  /// resolves singular values down to that rounding.)
  TORCH_ARG(bool, fp64) = false;
  /// Repeat the estimate at half the step, for the verdict, where the sampler has a bias in the step.
  TORCH_ARG(bool, halve_step) = true;
  /// Largest |w - w*| / |w*| that the verdict accepts while lambda_hat still depends on gamma. Positive. Infinity: for
  /// landscapes that are known to be the same at any distance.
  TORCH_ARG(double, max_relative_distance) = 1.0;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Chains that run at the same time, one thread each. At least 1; empty: the machine's cores. The result does not
  /// depend on it.
  TORCH_ARG(std::optional<std::int64_t>, threads) = std::nullopt;
  /// Processes that share the chains: chain i runs on rank i modulo their number. Null: this process alone.
  /// - All ranks hold the same weights and all of the data, and call estimate_llc at once with the same options.
  /// - Rank 0 returns the estimate, the same to the bit where the machines are alike. The others return an estimate
  ///   whose failure is "estimated by rank 0".
  /// - The transport's time-out must exceed what rank 0 does alone between two stretches of the chains (looks at the
  ///   curvature, seconds), and what a stretch takes longer on a rank with more chains.
  /// - If a rank fails or is lost, the call on the others throws RankError.
  TORCH_ARG(RanksPtr, ranks) = nullptr;
  /// End after so many seconds with the draws so far; the verdict then says so. Positive; empty: no limit. Of several
  /// ranks the first one's counts.
  TORCH_ARG(std::optional<double>, max_seconds) = std::nullopt;
  /// Forward and backward passes, over all chains, that automatic lengths may add up to. Positive; empty: no limit.
  TORCH_ARG(std::optional<std::int64_t>, max_gradients) = 400000;
  /// Keep the traces in LlcEstimate::trace.
  TORCH_ARG(bool, keep_trace) = false;
  /// Keep up to so many draws of the weights per chain in LlcEstimate::weights, evenly spaced. At least 0.
  TORCH_ARG(std::int64_t, keep_weights) = 0;
  /// Makes a model of the same shape, for models that are no torch::nn::Cloneable. Parameters and buffers are copied
  /// into it by name. Null: the model is cloned, or else its chains run in turn.
  TORCH_ARG(std::function<std::shared_ptr<torch::nn::Module>()>, factory) = nullptr;
  /// Called from one thread at a time with the share of the steps expected that is done: from 0 to 1, never falling.
  TORCH_ARG(std::function<void(double)>, progress) = nullptr;
  /// Asked before each step, possibly from several threads. True ends the run with the draws so far, and the verdict
  /// says so. Any of several ranks can.
  TORCH_ARG(std::function<bool()>, cancelled) = nullptr;
};

/// The bounds of the verdict. An estimate converged if it meets all that apply to it.
struct LlcBounds {
  static constexpr double kRHat = 1.05;           ///< r_hat is at most this
  static constexpr double kEss = 100;             ///< ess is at least this
  static constexpr double kRelativeError = 0.05;  ///< standard_error / lambda is at most this
  static constexpr double kDrift = 4;             ///< |drift| is at most so many standard errors
  /// below_baseline is at most this. Plain kind on all samples only: on mini-batches a single loss is mostly noise.
  static constexpr double kBelowBaseline = 0.1;
  /// descent / |lambda| is at most this. Plain kind only.
  static constexpr double kDescent = 0.1;
  static constexpr double kDiscretisation = 0.15;  ///< |discretisation| / lambda is at most this
  static constexpr double kAcceptance = 0.3;       ///< acceptance is at least this: below, MALA hardly moves
  static constexpr double kBatchNoise = 0.02;      ///< batch_noise is at most this
  /// |distance_ratio - 1| is at most this, or at most three of its standard errors.
  static constexpr double kDistanceRatio = 0.25;
  /// |step_change| / lambda is at most this, or at most three of its standard errors.
  static constexpr double kStepChange = 0.02;
  /// distance_ratio is at least this where lambda settled in the search for gamma; kDistanceRatio does not apply there.
  static constexpr double kDistanceOnTheWay = 0.4;
  /// The search for gamma settles where the bias that gamma still causes is at most this share of lambda.
  static constexpr double kGammaBias = 0.04;
  /// gamma_response less two standard errors is at most this share of lambda. Given gamma only.
  static constexpr double kGammaResponse = 0.5;
};

/// What was measured along the chains, and at w*, to judge an estimate by. A number that does not exist is empty.
struct LlcDiagnostics {
  // Mixing of the chains.
  std::optional<double> r_hat;       ///< rank-normalised split R-hat of the loss (Vehtari et al. 2021)
  std::optional<double> ess;         ///< effective sample size of the loss, all chains together
  std::optional<double> drift;       ///< Geweke: first fifth against last half of the draws, in standard errors
  std::optional<double> acceptance;  ///< MALA: mean acceptance probability over the draws
  std::int64_t diverged = 0;         ///< chains whose loss or weights became infinite or NaN

  // The point w*.
  double baseline = 0;                   ///< L_n(w*) over the chain's data
  double mu_max = 0;                     ///< largest curvature of L_n that was found; RmspropSgld: in w / sqrt(P)
  std::optional<double> below_baseline;  ///< share of the draws whose loss is below that at w*
  /// Upper bound of A = (n beta)^2 g^T (n beta H + gamma)^-1 g, with g and H the gradient and Hessian of L_n at w*. It
  /// is at most (n beta |g|)^2 / gamma, and zero at a minimum. The plain estimate is too small by A/2 to A.
  std::optional<double> descent;

  // The distance from w*.
  std::optional<double> distance;           ///< root mean square of |w - w*| over the draws
  std::optional<double> relative_distance;  ///< distance / |w*|
  /// gamma E|w - w*|^2 / (d - E[(w - w*) . grad n beta L]): 1 in the stationary state, where E[(w - w*) . grad U] = d.
  /// Far below 1 the chains are too short for gamma, even if their losses look stationary.
  std::optional<double> distance_ratio;
  std::optional<double> distance_ratio_error;  ///< its Monte Carlo error

  // The step size.
  /// Bias of n beta E[L(w) - L(w*)] by the finite step: the mean of (eps/8) grad(n beta L) . P grad U over SGLD chains.
  /// It is subtracted from lambda.
  /// - Exact on a quadratic loss, at any eps.
  /// - Mini-batches: it includes the first order of their noise in directions of more curvature than gamma.
  /// - Elsewhere the error left is of the order of its square.
  /// Zero for samplers without this bias.
  std::optional<double> discretisation;
  /// eps h_max n beta / (4 m): extra heat by the noise of mini-batches of m samples, as a share of lambda. Empty for
  /// full batches.
  std::optional<double> batch_noise;
  std::optional<double> step_change;        ///< lambda at eps/2 less lambda
  std::optional<double> step_change_error;  ///< its Monte Carlo error
  /// Richardson's extrapolation of the two to eps = 0. It is offered beside lambda, which does not contain it:
  ///   lambda + 4/3 step_change for a bias of second order in eps,
  ///   lambda + 2 step_change for averaged noise on mini-batches, whose bias is of first order.
  std::optional<double> richardson;

  // The localisation gamma.
  std::optional<double> gamma_change;        ///< lambda less lambda at four times gamma; searched gamma only
  std::optional<double> gamma_change_error;  ///< its Monte Carlo error
  /// Bias that gamma still causes: the rest of the geometric series of such changes,
  ///   sqrt(max(0, gamma_change^2 - gamma_change_error^2)) f / (1 - f),   f = 1/4 to 1/2 its ratio.
  /// It widens the interval and is not added to lambda. Searched gamma only.
  std::optional<double> gamma_bias;
  /// What halving gamma would add to lambda, by linear response: log(2) (gamma/2) Cov(n beta L, |w - w*|^2).
  std::optional<double> gamma_response;
  std::optional<double> gamma_response_error;  ///< its Monte Carlo error
};

/// What an estimate was made with, given or found.
struct LlcSettings {
  std::string sampler;  ///< "sgld", "rmsprop_sgld", "mala" or "averaged_noise"
  double n_beta = 0;
  double gamma = 0;       ///< 0: nothing was sampled
  double resolution = 0;  ///< gamma / (n beta): directions of less curvature hardly count
  double step_size = 0;   ///< eps
  double relaxation = 0;  ///< 2 / (eps gamma): steps in which a direction held by gamma alone relaxes
  std::int64_t samples = 0;
  std::int64_t parameters = 0;  ///< dimension of the chains
  std::int64_t batch_size = 0;  ///< samples per step; `samples` for full batches
  std::int64_t chains = 0;
  std::int64_t draws = 0;  ///< per chain; fewer than asked for where the run was ended
  std::int64_t burn_in = 0;
  std::uint64_t seed = 0;
  std::string replicas;  ///< how the threads got their models: "clone", "factory" or "in turn"
};

/// What was tried on the way to an estimate: chains at one gamma and step size.
struct LlcTrial {
  double gamma = 0;
  double step_size = 0;
  std::int64_t burn_in = 0;  ///< per chain
  std::int64_t draws = 0;    ///< per chain
  std::optional<double> lambda;
  std::optional<double> standard_error;
  std::string outcome;  ///< "taken", or why another trial followed, or what it was for
};

/// An estimate, how it was made, and whether it can be believed. Do not use lambda without its verdict.
struct LlcEstimate {
  std::int64_t step = 0;  ///< training step that it belongs to; the caller sets it
  LlcKind kind = LlcKind::Plain;

  std::optional<double> lambda;          ///< lambda_hat(gamma, n beta); empty where the chains gave no finite number
  std::optional<double> standard_error;  ///< Monte Carlo error of the mean over all draws, baseline included
  /// The 95 % interval
  ///   lambda +- 1.96 sqrt(standard_error^2 + gamma_bias^2 + max(0, step_change^2 - step_change_error^2)).
  std::optional<double> low, high;

  /// Empty: converged. Otherwise each entry names one failure with its number and bound, such as "r_hat 1.31 > 1.05".
  std::vector<std::string> failures;
  bool converged() const { return failures.empty(); }
  /// "converged", or the failures joined by "; ".
  std::string verdict() const;

  /// n E[L_n(w)] over the draws: WBIC (Watanabe 2013), localised. Plain kind at beta = 1/log n only.
  std::optional<double> wbic;
  /// sum_i Var[log p(y_i | x_i, w)] over the draws (Watanabe 2010). Plain kind, all samples only.
  std::optional<double> functional_variance;
  /// beta/2 functional_variance, beta = n_beta / n: the singular fluctuation at the chains' temperature. d/2 for a
  /// regular model.
  std::optional<double> singular_fluctuation;

  LlcDiagnostics diagnostics;
  LlcSettings settings;
  std::vector<LlcTrial> trials;  ///< in the order in which they ran; the estimate is the one that was "taken"

  std::int64_t gradients = 0;  ///< forward and backward passes spent, calibration included
  double seconds = 0;          ///< wall time

  /// LlcOptions::keep_trace: n beta (L(w) - L(w*)) less its discretisation, one vector of draws a chain.
  std::vector<std::vector<double>> trace;
  /// LlcOptions::keep_weights: (chains, kept draws, parameters), in the chain's dtype and on its device. Weights stand
  /// in the order of `named_parameters()`, those that move. Undefined if none were kept.
  at::Tensor weights;
};

/// Estimates the LLC of the model at its present weights over the data.
///
/// How: in eval mode, so that dropout is off and batch norm uses its running statistics; in the model's own dtype (or
/// fp64) and on its own device. Parameters that the loss does not depend on are held by gamma alone.
///
/// Valid input: floating-point weights of one type, Float or Double, on one device (any type with `fp64`); data with
/// targets. No other thread may train the model meanwhile.
///
/// Leaves mode, weights, buffers, gradients and the default generator as they were, also after an exception. No
/// recorder sees the call.
///
/// Result: see LlcEstimate. Chains that diverge, a loss at w* that is not finite, a budget that ends and a cancelled
/// run are verdicts, not exceptions. The same options, model, data and seed give the same bits whatever the number of
/// threads.
///
/// Error: `standard_error` is the Monte Carlo error of lambda_hat at this gamma and n beta. [low, high] also allows for
/// the bias by gamma and by the step.
///
/// Throws InvalidArgument for options out of range, patterns that select no parameter, a model without parameters, data
/// without targets and fewer samples than a batch; RankError as said at LlcOptions::ranks; and whatever `forward`
/// throws.
LlcEstimate estimate_llc(const Problem& problem, const LlcOptions& options = {});

}  // namespace dds
