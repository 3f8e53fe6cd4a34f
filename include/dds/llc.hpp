// The local learning coefficient (LLC) of a model at its present weights w*, estimated by Langevin dynamics around them
// (Lau et al., arXiv:2308.12108):
//
//   lambda_hat = n beta (E[L_n(w)] - L_n(w*)),   w ~ exp(-n beta L_n(w) - gamma/2 |w - w*|^2)
//
//   L_n    the mean loss (negative log-likelihood) over n samples
//   beta   the inverse temperature; 1/log n unless it is given
//   gamma  the localisation, which holds the chains near w*
//
// lambda_hat depends on beta and gamma. So it is reported with both, with an error bar and with a verdict. The verdict
// of an estimate that did not converge names what failed.
//
// By default everything is calibrated:
//   step     from h_max, the largest curvature of n beta L_n + gamma/2 |w - w*|^2, found by power iteration at w* and
//            along the chains
//   sampler  on all samples, MALA up to 1000 weights and averaged noise beyond; on mini-batches, SGLD
//   gamma    divided by 4 until lambda_hat stays the same; if it never does, the verdict is "gamma_limited", and the
//            estimate is the one with the smallest error
//   length   draws are added until R-hat, drift, error and (given gamma) distance from w* meet their bounds, or the
//            budget ends
// If the step of a sampler causes a bias, the estimate is checked against one at half the step.
//
// Definitions, formulas and their sources: src/docs/the_method.md.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/patterns.hpp>
#include <dds/problem.hpp>
#include <dds/ranks.hpp>
#include <dds/settle.hpp>
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
  Tilted,  ///< L(w) - g.(w - w*): the slope taken out, for points that are no minimum. Not the published LLC
};

/// "plain" or "tilted".
std::string_view to_string(LlcKind kind);
/// The inverse. Throws InvalidArgument for any other text.
LlcKind llc_kind_from_string(std::string_view text);

/// How chains move. xi is standard normal. U = n beta L_m(w) + gamma/2 |w - w*|^2, with L_m the mean loss over the m
/// samples of the step's batch.
enum class Sampler {
  Automatic,      ///< on all samples, Mala up to 1000 weights and AveragedNoise beyond; on mini-batches, Sgld
  Sgld,           ///< w += -(eps/2) grad U + sqrt(eps) xi. The bias by the step is estimated and subtracted
  RmspropSgld,    ///< Sgld with eps P for eps; P = 1/sqrt(E[(grad U)^2]), scaled to mean 1, is found before the
                  ///< burn-in and then fixed (pSGLD, arXiv:1512.07666)
  Mala,           ///< Sgld on all samples as a Metropolis proposal: no bias at any step size
  AveragedNoise,  ///< Sgld with the mean of two successive xi: no bias on a quadratic (Leimkuhler and Matthews 2013)
};

/// "automatic", "sgld", "rmsprop_sgld", "mala" or "averaged_noise".
std::string_view to_string(Sampler sampler);

/// Settings of estimate_llc. An empty optional leaves a setting to calibration, or sets no limit. A value is used as
/// given.
struct LlcOptions {
  TORCH_ARG(LlcKind, kind) = LlcKind::Plain;
  TORCH_ARG(Sampler, sampler) = Sampler::Automatic;
  /// Chains, each from w* with its own random numbers. At least 1; R-hat needs 2.
  TORCH_ARG(std::int64_t, chains) = 4;
  /// Draws of the weights per chain after the burn-in, one each step. At least 20. Empty: as many as `target_error`
  /// takes. (ReadOptions::draws counts draws of labels instead.)
  TORCH_ARG(std::optional<std::int64_t>, draws) = std::nullopt;
  /// Steps per chain before the first draw, at each gamma. At least 0. Empty: with B the steps per chain that are left
  /// in the budget,
  ///   gamma given:     2/(eps gamma), at most max(5000, B/4),
  ///   gamma searched:  1/(eps gamma), at most max(5000, B/6);
  /// in both cases at most B/3, but never fewer than 200.
  TORCH_ARG(std::optional<std::int64_t>, burn_in) = std::nullopt;
  /// standard_error / lambda at which chains are long enough, if `draws` is empty. Above 0, below 1.
  TORCH_ARG(double, target_error) = 0.0075;
  /// Samples per step. At least 1; for Mala all samples. Empty: all samples. n beta always uses n, not the batch size.
  TORCH_ARG(std::optional<std::int64_t>, batch_size) = std::nullopt;
  /// On mini-batches, take most of the noise away (Baker, Fearnhead, Fox and Nemeth 2019). The data are dealt once, by
  /// the seed, into batches B of `batch_size` samples or one fewer. A step takes one of them at random and uses
  ///   gradient   grad l_B(w) - grad l_B(w*) + grad L_n(w*)
  ///   value      l_B(w) - l_B(w*) - (grad l_B(w*) - grad L_n(w*)) . (w - w*)
  /// whose means over the batches are grad L_n(w) and L_n(w) - L_n(w*). The gradients at w* are kept where they take at
  /// most 256 MiB; otherwise each step takes a second pass. False: batches drawn with replacement, without these terms.
  /// For Tilted the terms are there in any case.
  TORCH_ARG(bool, control_variates) = true;
  /// First go down to a stationary point: that is w* then, see LlcEstimate::settled. Empty: w* is where the model is.
  /// Not with several ranks: call `settle` on one, and give all the same weights.
  TORCH_ARG(std::optional<SettleOptions>, settle) = std::nullopt;
  /// eps, positive. Empty: `relative_step` / h_max, with h_max = n beta mu_max + gamma and mu_max the largest curvature
  /// of L_n that was found. Mala starts there, and then adapts eps to an acceptance of 0.8.
  TORCH_ARG(std::optional<double>, step_size) = std::nullopt;
  /// eps h_max, above 0, below 2. On mini-batches less is used where their noise asks for it: with control variates, as
  /// much as LlcDiagnostics::batch_noise says where the chains stand; without, for batches of m samples, at most
  /// 0.072 m / (n beta).
  TORCH_ARG(double, relative_step) = 0.5;
  /// gamma, positive. Empty: searched for, by factors of 4, around 0.03 min(n beta, sqrt(n beta)) times the root mean
  /// square of the curvatures of L_n (src/docs/the_method.md). So it does not depend on the unit of the weights.
  TORCH_ARG(std::optional<double>, gamma) = std::nullopt;
  /// n beta, positive. Empty: n / log n, which needs two samples.
  TORCH_ARG(std::optional<double>, n_beta) = std::nullopt;
  /// Chains stay within |w_i - w*_i| <= box for every weight i. Positive; empty: no box.
  TORCH_ARG(std::optional<double>, box) = std::nullopt;
  /// The full names of the parameters that move. Parameters that do not require grad never move. If only some
  /// parameters move, the estimate is their refined LLC.
  TORCH_ARG(Patterns, parameters) = std::nullopt;
  /// True: sample in fp64 copies of weights, buffers and floating-point data. False: in the model's own dtype. That is
  /// the default, since the noise of a chain is far above the rounding of fp32. (ReadOptions::fp64 is true by default:
  /// a reading resolves singular values down to that rounding.)
  TORCH_ARG(bool, fp64) = false;
  /// If the step of the sampler causes a bias, repeat the estimate at half the step, for the verdict.
  TORCH_ARG(bool, halve_step) = true;
  /// Largest |w - w*| / |w*| that the verdict accepts while lambda_hat still depends on gamma. Positive. Use infinity
  /// for landscapes that are known to be the same at any distance.
  TORCH_ARG(double, max_relative_distance) = 1.0;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Chains that run at the same time, one thread each. At least 1; empty: the machine's cores. The result does not
  /// depend on it.
  TORCH_ARG(std::optional<std::int64_t>, threads) = std::nullopt;
  /// Processes (ranks) that share the chains: of R ranks, rank i mod R runs chain i. Null: this process alone.
  /// - All ranks hold the same weights and all of the data, and call estimate_llc at once with the same options.
  /// - Rank 0 returns the estimate, the same to the bit where the machines are alike. The others return an estimate
  ///   whose failure is "estimated by rank 0".
  /// - The transport's time-out must exceed the longest wait. Other ranks wait while rank 0 measures the curvature
  ///   (seconds). A rank with fewer chains waits for one with more.
  /// - If a rank fails or is lost, the call on the others throws RankError.
  TORCH_ARG(RanksPtr, ranks) = nullptr;
  /// Seconds after which to end with the draws so far. The verdict then says so. Positive; empty: no limit. With
  /// several ranks, the value of rank 0 holds.
  TORCH_ARG(std::optional<double>, max_seconds) = std::nullopt;
  /// Budget of forward and backward passes, over all chains. It limits burn-in and draws where these are automatic.
  /// Positive; empty: no limit.
  TORCH_ARG(std::optional<std::int64_t>, max_gradients) = 400000;
  /// Keep the traces in LlcEstimate::trace.
  TORCH_ARG(bool, keep_trace) = false;
  /// Most draws of the weights per chain to keep in LlcEstimate::weights, evenly spaced. At least 0.
  TORCH_ARG(std::int64_t, keep_weights) = 0;
  /// Makes a model of the same shape, for models that are no torch::nn::Cloneable. Parameters and buffers are copied
  /// into it by name. Null: the model is cloned. If it cannot be cloned, the chains run in turn.
  TORCH_ARG(std::function<std::shared_ptr<torch::nn::Module>()>, factory) = nullptr;
  /// Called with the share of the expected steps that is done: from 0 to 1, never falling. One thread at a time.
  TORCH_ARG(std::function<void(double)>, progress) = nullptr;
  /// Called before each step, possibly by several threads at once. True ends the run with the draws so far. The verdict
  /// then says so. With several ranks, any of them can end the run.
  TORCH_ARG(std::function<bool()>, cancelled) = nullptr;
};

/// The bounds of the verdict. An estimate has converged if it meets all that apply to it. Names are those of
/// LlcDiagnostics and LlcEstimate.
struct LlcBounds {
  static constexpr double kRHat = 1.05;           ///< r_hat is at most this
  static constexpr double kEss = 100;             ///< ess is at least this
  static constexpr double kRelativeError = 0.05;  ///< standard_error / lambda is at most this
  static constexpr double kDrift = 4;             ///< |drift| is at most this
  /// below_baseline is at most this. Plain kind on all samples only: on mini-batches a single loss is mostly noise.
  static constexpr double kBelowBaseline = 0.1;
  /// descent / |lambda| is at most this. Plain kind only.
  static constexpr double kDescent = 0.1;
  static constexpr double kSaddle = 0.02;          ///< saddle / |lambda| is at most this
  static constexpr double kRounding = 0.02;        ///< rounding / |lambda| is at most this
  static constexpr double kElsewhere = 0.02;       ///< elsewhere / |lambda| is at most this
  static constexpr double kDiscretisation = 0.15;  ///< |discretisation| / lambda is at most this
  static constexpr double kAcceptance = 0.3;       ///< acceptance is at least this: below, MALA hardly moves
  static constexpr double kBatchNoise = 0.02;      ///< |batch_noise| is at most this
  /// |distance_ratio - 1| is at most this, or at most 3 distance_ratio_error.
  static constexpr double kDistanceRatio = 0.25;
  /// |step_change| / lambda is at most this, or |step_change| is at most 3 step_change_error. And step_change_error is
  /// at most 2 kRelativeError lambda.
  static constexpr double kStepChange = 0.02;
  /// If lambda hardly depends on gamma, distance_ratio above this is enough, in place of kDistanceRatio.
  static constexpr double kDistanceOnTheWay = 0.4;
  /// The search for gamma settles once the bias that gamma still causes is at most this share of lambda. A given gamma
  /// is taken as settled if it is by the response alone: 2/ln(2) (gamma_response + gamma_response_error) is at most
  /// this share.
  static constexpr double kGammaBias = 0.04;
  /// gamma_response - 2 gamma_response_error is at most this share of lambda. Given gamma only.
  static constexpr double kGammaResponse = 0.5;
};

/// Measurements along the chains and at w*, by which an estimate is judged. A number that does not exist is empty.
struct LlcDiagnostics {
  // Mixing of the chains.
  std::optional<double> r_hat;       ///< rank-normalised split R-hat of the loss (Vehtari et al. 2021)
  std::optional<double> ess;         ///< effective sample size of the loss, all chains together
  std::optional<double> drift;       ///< Geweke: mean of the first fifth less that of the last half, in standard errors
  std::optional<double> acceptance;  ///< Mala: mean acceptance probability over the draws
  std::int64_t diverged = 0;         ///< chains whose loss or weights became infinite or NaN

  // The point w*.
  double baseline = 0;  ///< L_n(w*) over the chain's data
  double mu_max = 0;    ///< largest curvature of L_n where chains stood; RmspropSgld: with respect to w / sqrt(P)
  std::optional<double> below_baseline;  ///< share of the draws whose loss is below that at w*
  /// Upper bound of A = (n beta)^2 g^T (n beta H + gamma)^-1 g, with g and H the gradient and Hessian of L_n at w*.
  /// The bound is at most (n beta |g|)^2 / gamma, and zero at a minimum. The plain estimate is too small by A/2 to A.
  std::optional<double> descent;

  /// The most negative curvature of L_n at w* that was found, by Lanczos' method. 0: none. On mini-batches, of the loss
  /// over the samples of four of them.
  std::optional<double> negative_curvature;
  /// What directions v of negative curvature at w* take off lambda: the sum of -E[c(t)], where that is positive, with
  ///   c(t) = n beta (L_n(w* + t v) - L_n(w*) - t g.v),   t ~ exp(-c(t) - gamma/2 t^2).
  /// 0 at a minimum. Far above 0, w* is a saddle: the chains leave it for lower points, and there is no coefficient of
  /// w*. It widens the interval.
  std::optional<double> saddle;
  /// With LlcOptions::settle: how far w* is from the checkpoint. See LlcEstimate::settled.
  std::optional<double> settled_distance;

  // What the chains do not see.
  /// Root mean square error of n beta (L_n(w) - L_n(w*)) by the rounding of the model's dtype, where the chains end:
  /// its distance from the value in fp64. Empty for models in fp64 or that cannot run in it, and on mini-batches. It
  /// widens the interval.
  std::optional<double> rounding;
  /// What lambda would gain by regions that hold a part of the density although no chain was there: chains do not cross
  /// to them in their time. Found where draws of exp(-gamma/2 |w - w*|^2) within max_relative_distance hit them.
  /// Empty on mini-batches, with a box, and for more than 1000 weights. It widens the interval.
  std::optional<double> elsewhere;

  // The distance from w*.
  std::optional<double> distance;           ///< root mean square of |w - w*| over the draws
  std::optional<double> relative_distance;  ///< distance / |w*|
  /// gamma E|w - w*|^2 / (d - E[(w - w*) . grad(n beta L)]), with d parameters. It is 1 in the stationary state, where
  /// E[(w - w*) . grad U] = d. Far below 1, the chains are too short for gamma, even if their losses look stationary.
  /// Empty with a box, for AveragedNoise on mini-batches, and if the denominator is not above its Monte Carlo error.
  std::optional<double> distance_ratio;
  std::optional<double> distance_ratio_error;  ///< its Monte Carlo error

  // The step size.
  /// Bias of n beta E[L(w) - L(w*)] by the finite step. It is subtracted from lambda.
  ///   Sgld, RmspropSgld: the mean of (eps/8) grad(n beta L) . P grad U over the draws; P = 1 for Sgld
  ///   Mala, AveragedNoise: 0
  /// Error: none on a quadratic loss, at any eps; elsewhere of the order of its square. With mini-batches it includes
  /// the first order of their noise, in directions of more curvature than gamma.
  std::optional<double> discretisation;
  /// What the noise of mini-batches adds to lambda at most, as a share of it. Empty for full batches.
  ///   (eps/8) tr(P C) / lambda,   C the covariance over the batches of the step's n beta grad,
  /// measured by a pass over all batches where each chain ended. `discretisation` takes it off lambda, which is right
  /// in directions of more curvature than gamma, and too much in others.
  std::optional<double> batch_noise;
  std::optional<double> step_change;        ///< lambda(eps/2) - lambda(eps)
  std::optional<double> step_change_error;  ///< its Monte Carlo error
  /// Richardson extrapolation of lambda to eps = 0. `lambda` itself is not changed by it.
  ///   lambda + 4/3 step_change   for a bias of second order in eps
  ///   lambda + 2 step_change     for AveragedNoise on mini-batches, whose bias is of first order
  std::optional<double> richardson;

  // The localisation gamma.
  std::optional<double> gamma_change;        ///< lambda(gamma) - lambda(4 gamma); searched gamma only
  std::optional<double> gamma_change_error;  ///< its Monte Carlo error
  /// Bias that gamma still causes: what further divisions of gamma by 4 would add. By the one of two measurements that
  /// has less noise; zero where that is within its noise.
  ///   the move:      sqrt(max(0, gamma_change^2 - gamma_change_error^2)) f / (1 - f),
  ///                  f, between 1/4 and 1/2, the ratio of two successive changes
  ///   the response:  gamma_response / (p ln 2), p at most 1/2 the exponent by which it falls with gamma
  /// It widens the interval and is not added to lambda. Searched gamma only.
  std::optional<double> gamma_bias;
  /// What halving gamma would add to lambda, by linear response: ln(2) (gamma/2) Cov(n beta L, |w - w*|^2).
  std::optional<double> gamma_response;
  std::optional<double> gamma_response_error;  ///< its Monte Carlo error
};

/// The settings that an estimate was made with, given or found.
struct LlcSettings {
  std::string sampler;  ///< "sgld", "rmsprop_sgld", "mala" or "averaged_noise"
  double n_beta = 0;
  double gamma = 0;       ///< 0: nothing was sampled
  double resolution = 0;  ///< gamma / (n beta): directions of L_n of less curvature hardly count
  double step_size = 0;   ///< eps
  double relaxation = 0;  ///< 2 / (eps gamma): steps in which a direction without curvature relaxes
  std::int64_t samples = 0;
  std::int64_t parameters = 0;  ///< number of weights that move
  std::int64_t batch_size = 0;  ///< samples per step; `samples` for full batches
  std::int64_t chains = 0;
  std::int64_t draws = 0;  ///< per chain; fewer than asked for where the run was ended
  std::int64_t burn_in = 0;
  std::uint64_t seed = 0;
  std::string replicas;  ///< how threads got their models: "clone", "factory" or "in turn"
};

/// One attempt on the way to an estimate: chains at one gamma and step size.
struct LlcTrial {
  double gamma = 0;
  double step_size = 0;
  std::int64_t burn_in = 0;  ///< per chain
  std::int64_t draws = 0;    ///< per chain
  std::optional<double> lambda;
  std::optional<double> standard_error;
  std::string outcome;  ///< "taken", why another trial followed, or what this trial was for
};

/// An estimate, how it was made, and whether it can be believed. Do not use lambda without its verdict.
struct LlcEstimate {
  std::int64_t step = 0;  ///< training step; set by the caller
  LlcKind kind = LlcKind::Plain;

  std::optional<double> lambda;          ///< lambda_hat(gamma, n beta); empty if the chains gave no finite number
  std::optional<double> standard_error;  ///< Monte Carlo error of the mean over all draws, baseline included
  /// The 95 % interval, lambda +- 1.96 times the root of
  ///   standard_error^2 + gamma_bias^2 + descent^2/4 (Plain) + saddle^2 + rounding^2 + elsewhere^2
  ///   + max(0, step_change^2 - step_change_error^2).
  std::optional<double> low, high;

  /// Empty: converged. Otherwise each entry names one failure with its number and bound, such as "r_hat 1.31 > 1.05".
  /// The first is what most likely causes the others. It says what to do.
  std::vector<std::string> failures;
  bool converged() const { return failures.empty(); }
  /// "converged", or the first failure and how many more there are.
  std::string verdict() const;

  /// With LlcOptions::settle: how far w* is from the checkpoint, and what is left of the descent.
  std::optional<Settled> settled;

  /// n E[L_n(w)] over the draws: WBIC (Watanabe 2013), localised. Plain kind at beta = 1/log n only.
  std::optional<double> wbic;
  /// sum_i Var[log p(y_i | x_i, w)] over the draws (Watanabe 2010). Plain kind, all samples only.
  std::optional<double> functional_variance;
  /// (beta/2) functional_variance, with beta = n_beta / n: the singular fluctuation at inverse temperature beta. d/2
  /// for a regular model.
  std::optional<double> singular_fluctuation;

  LlcDiagnostics diagnostics;
  LlcSettings settings;
  std::vector<LlcTrial> trials;  ///< in the order in which they ran; the estimate is that of "taken"

  std::int64_t gradients = 0;  ///< forward and backward passes spent, calibration included
  double seconds = 0;          ///< wall time

  /// With LlcOptions::keep_trace: n beta (L(w) - L(w*)) less the discretisation of the draw, one vector per chain.
  std::vector<std::vector<double>> trace;
  /// With LlcOptions::keep_weights: shape (chains, kept draws, parameters), in the chains' dtype and on their device.
  /// The weights are those that move, in the order of `named_parameters()`, but complex ones first. Undefined if none
  /// were kept.
  at::Tensor weights;
};

/// Estimates the LLC of the model at its present weights over the data.
///
/// - The model runs in eval mode: dropout is off, and batch norm uses its running statistics.
/// - It runs on its own device and in its own dtype, or in fp64 with LlcOptions::fp64.
/// - Parameters that the loss does not depend on are held by gamma alone.
/// - A complex parameter is two weights, its real and its imaginary part.
/// - Mode, weights, buffers, gradients and the default generator are left as they were, also after an exception.
/// - No recorder and no observing hook sees the call.
///
/// Valid input: weights of one floating-point type (or its complex type) on one device; Float or Double, any type with
/// LlcOptions::fp64. Data with targets. No other thread may train the model meanwhile.
///
/// Result: see LlcEstimate. These are verdicts, not exceptions: chains that diverge, a loss at w* that is not finite, a
/// budget that ends, a cancelled run. The same options, model, data and seed give the same bits, whatever the number of
/// threads.
///
/// Error: `standard_error` is the Monte Carlo error of lambda_hat at this gamma and n beta. [low, high] also allows for
/// the bias by gamma and by the step.
///
/// Throws InvalidArgument for options out of range, patterns that select no parameter, a model without parameters, data
/// without targets, fewer samples than a batch, and Mala on mini-batches.
/// Throws RankError as LlcOptions::ranks says, and whatever `forward` throws.
LlcEstimate estimate_llc(const Problem& problem, const LlcOptions& options = {});

}  // namespace dds
