// The local learning coefficient (LLC) of a model at its present weights w*, by Langevin dynamics around them
// (Lau et al., arXiv:2308.12108):
//
//   lambda_hat = n beta (E[L_n(w)] - L_n(w*)),   w ~ exp(-n beta L_n(w) - gamma/2 |w - w*|^2)
//
// L_n is the mean over n samples of the likelihood's per-sample loss; beta = 1/log n unless told otherwise. What is
// reported is the *localised* lambda_hat(gamma, n beta), with an error bar and a verdict: an estimate that is not
// converged names what failed.
//
// With the defaults everything is found out:
//   step     from the largest curvature h_max of -log p, by power iteration at w* and along the chains
//   sampler  MALA (exact) up to 1000 weights on all samples, averaged noise beyond, SGLD on mini-batches; the step of
//            the latter two is checked against its half
//   gamma    divided by 4 until lambda_hat stays where it is, or else the verdict is "gamma_limited"
//   length   doubled until chains, error and distance from w* are what they should be, or the budget ends
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

enum class LlcKind {
  Plain,   ///< the published estimator
  Tilted,  ///< ours: samples L(w) - g.(w - w*), g the gradient at w*, and averages L(w) - L(w*) - g.(w - w*): the
           ///< complexity of the curvature alone, for points that are no minimum; not the published LLC
};

/// How chains move. xi are standard normal, U = n beta L_m(w) + gamma/2 |w - w*|^2, L_m over the batch of the step.
enum class Sampler {
  Automatic,
  Sgld,           ///< w += -(eps/2) grad U + sqrt(eps) xi. What its finite step adds is estimated and taken off
  RmspropSgld,    ///< the same with eps P for eps, P = 1/sqrt(E[(grad U)^2]) found in the burn-in and then fixed
                  ///< (pSGLD, Li et al., arXiv:1512.07666)
  Mala,           ///< an SGLD step on all samples as a Metropolis proposal: no bias at any step size
  AveragedNoise,  ///< SGLD with the mean of two successive xi: no bias on a quadratic (Leimkuhler and Matthews 2013)
};

/// "automatic", "sgld", "rmsprop_sgld", "mala" or "averaged_noise".
std::string_view to_string(Sampler sampler);

/// Settings of estimate_llc. The defaults calibrate themselves; what is set by hand is used as given.
struct LlcOptions {
  TORCH_ARG(LlcKind, kind) = LlcKind::Plain;
  TORCH_ARG(Sampler, sampler) = Sampler::Automatic;
  /// Chains, each from w* with its own draws. R-hat needs at least two.
  TORCH_ARG(std::int64_t, chains) = 4;
  /// Draws kept per chain after burn-in, one each step; at least 20. 0: as many as `target_error` takes.
  TORCH_ARG(std::int64_t, draws) = 0;
  /// Steps per chain before the first draw that counts, at each gamma. -1 = 2 / (eps gamma), at least 200 and at most
  /// 5000 or a quarter of the budget, whichever is more; half of that, up to a sixth, where gamma is searched for.
  TORCH_ARG(std::int64_t, burn_in) = -1;
  /// Where `draws` is 0: standard_error / lambda at which chains are long enough.
  TORCH_ARG(double, target_error) = 0.0075;
  /// Samples per step, each drawn from all; 0 = all of them. n beta is from n, never from the batch size.
  TORCH_ARG(std::int64_t, batch_size) = 0;
  /// eps; 0 = `relative_step` / h_max, h_max = n beta mu_max + gamma, mu_max the largest curvature of L_n found by
  /// power iteration at w* and along the chains; for MALA that is where the search for an acceptance of 0.8 begins.
  TORCH_ARG(double, step_size) = 0.0;
  /// c = eps h_max. With mini-batches of m samples it is held below 0.072 m / (n beta), see LlcEstimate::batch_noise.
  TORCH_ARG(double, relative_step) = 0.5;
  /// gamma; 0: found as said above, in steps of 4 around 0.03 sqrt(n beta) (src/docs/the_method.md, The estimate of the
  /// LLC).
  TORCH_ARG(double, localization) = 0.0;
  /// n beta; 0 = n / log n.
  TORCH_ARG(double, n_beta) = 0.0;
  /// Half the width of a box around w* that chains do not leave, in every weight; 0: none.
  TORCH_ARG(double, box) = 0.0;
  /// Glob patterns ('*' any text, '?' one character) on the full names of the parameters that move; empty: all that
  /// require grad. With a part of them, the refined LLC of that part. For another data distribution give other data.
  TORCH_ARG(std::vector<std::string>, parameters) = {};
  /// Sample in fp64 copies of weights, buffers and floating-point data; false: in the model's own dtype.
  TORCH_ARG(bool, fp64) = false;
  /// After an estimate whose sampler has a bias in the step size, one with half the step, for the verdict.
  TORCH_ARG(bool, halve_step) = true;
  /// The verdict's bound of |w - w*| / |w*|, where lambda_hat still depends on gamma: there, a chain further off than
  /// the weights are long no longer sees the loss around w*. Infinity for landscapes known to be the same everywhere.
  TORCH_ARG(double, max_relative_distance) = 1.0;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Chains that run at a time, one thread each; 0 = the machine's cores. The result does not depend on it.
  TORCH_ARG(std::int64_t, threads) = 0;
  /// Processes that the chains are spread over, chain i on rank i modulo their number, each with the same weights and
  /// all of the data; null: this one alone. The estimate is the same, to the bit where the machines are alike. All call
  /// estimate_llc at once with the same options, and wait for rank 0 meanwhile: the transport's time-out must be longer
  /// than what it does alone between two stretches of the chains (looks at the curvature, seconds) and than a stretch
  /// takes a rank with more chains than another. Rank 0 returns the
  /// estimate, the others one with the failure "estimated by rank 0". A rank that fails or is lost ends the call on the
  /// others by a RankError.
  TORCH_ARG(RanksPtr, ranks) = nullptr;
  /// Stop after so many seconds with what there is (the verdict then says so); 0 = no limit. Of several ranks the first
  /// one's counts.
  TORCH_ARG(double, max_seconds) = 0.0;
  /// Forward and backward passes, over all chains, that automatic lengths may add up to; 0 = no limit.
  TORCH_ARG(std::int64_t, max_gradients) = 400000;
  /// Keep the traces in LlcEstimate::trace.
  TORCH_ARG(bool, keep_trace) = false;
  /// Keep up to so many draws of the weights per chain in LlcEstimate::weights, evenly spaced.
  TORCH_ARG(std::int64_t, keep_weights) = 0;
  /// Makes a model of the same shape, for models that torch::nn::Cloneable does not cover. Parameters and buffers are
  /// copied into it by name.
  TORCH_ARG(std::function<std::shared_ptr<torch::nn::Module>()>, factory) = nullptr;
  /// Called now and then from one thread at a time with the share of the steps foreseen that is done, 0 to 1, never
  /// falling.
  TORCH_ARG(std::function<void(double)>, progress) = nullptr;
  /// Asked before each step, possibly from several threads: true ends the run with what there is, and the verdict says
  /// so. Of several ranks any can.
  TORCH_ARG(std::function<bool()>, cancelled) = nullptr;
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
  static constexpr double kAcceptance = 0.3;       ///< at least, MALA: exact at any, but it no longer gets anywhere
  static constexpr double kBatchNoise = 0.02;
  static constexpr double kDistanceRatio = 0.25;    ///< |distance_ratio - 1|, beyond three standard errors
  static constexpr double kStepChange = 0.02;       ///< |step_change| / lambda, beyond three standard errors
  static constexpr double kDistanceOnTheWay = 0.4;  ///< distance_ratio, where four times gamma gave the same lambda
  static constexpr double kGammaBias = 0.04;        ///< what may be left of gamma's bias, over lambda: gamma found
  static constexpr double kGammaResponse = 0.5;     ///< gamma_response / lambda, beyond two errors: gamma given by hand
};

/// What was tried on the way to an estimate: chains at one gamma and step size.
struct LlcTrial {
  double gamma = 0;
  double step_size = 0;
  std::int64_t burn_in = 0;  ///< per chain
  std::int64_t draws = 0;    ///< per chain
  std::optional<double> lambda;
  std::optional<double> standard_error;
  std::string outcome;  ///< in words: "taken", or why another one followed
};

/// An estimate, how it was made, and whether it can be believed. There is no lambda without a verdict.
struct LlcEstimate {
  std::int64_t step = 0;  ///< training step that it belongs to; the caller's to fill in
  LlcKind kind = LlcKind::Plain;

  std::optional<double> lambda;          ///< lambda_hat(gamma, n beta); empty where the chains gave no finite number
  std::optional<double> standard_error;  ///< Monte Carlo error of the mean over all draws, baseline included
  /// The stated 95 % interval: lambda +- 1.96 sqrt(standard_error^2 + gamma_bias^2 + what step_change shows beyond its
  /// own error).
  std::optional<double> low, high;

  /// Empty: converged. Otherwise what failed, one word each with its number, such as "r_hat 1.31 > 1.05".
  std::vector<std::string> failures;
  bool converged() const { return failures.empty(); }
  /// "converged", or the failures joined by "; ".
  std::string verdict() const;

  std::optional<double> r_hat;       ///< rank-normalised split R-hat of the loss over the chains (Vehtari et al. 2021)
  std::optional<double> ess;         ///< effective sample size of the loss, all chains together
  std::optional<double> acceptance;  ///< MALA: mean acceptance probability over the draws
  /// What the finite step adds to n beta E[L(w) - L(w*)], estimated along SGLD chains, and taken off `lambda`: the mean
  /// of (eps/8) grad(n beta L) . P grad U. Exact on a quadratic loss whatever eps; of the noise of mini-batch gradients
  /// it takes the first order off in directions that are curved more than gamma; on other losses what is left is of the
  /// order of its square. Zero for the other samplers.
  std::optional<double> discretisation;
  std::optional<double> drift;              ///< Geweke: first fifth against last half of the draws, in standard errors
  std::optional<double> below_baseline;     ///< share of the draws whose loss is below that at w*
  std::optional<double> distance;           ///< root mean square of |w - w*| over the draws
  std::optional<double> relative_distance;  ///< the same divided by |w*|
  /// E|w - w*|^2 over what it must be in the stationary state, (d - E[(w - w*) . grad n beta L]) / gamma (the identity
  /// E[(w - w*) . grad U] = d). Far below 1 the chains are too short for gamma, however clean their loss looks.
  std::optional<double> distance_ratio;
  std::optional<double> distance_ratio_error;  ///< its Monte Carlo error
  /// Upper bound of A = (n beta)^2 g^T (n beta H + gamma)^-1 g, g and H the gradient and Hessian at w*, at most
  /// (n beta |g|)^2 / gamma: small against lambda where w* is a minimum. The plain estimate is too small by A/2 to A.
  std::optional<double> descent;
  /// eps h_max n beta / (4 m): the heat of the noise of mini-batches of m, as a share of lambda. Full batch: empty.
  std::optional<double> batch_noise;

  std::optional<double> step_change;        ///< lambda_hat at eps/2 less lambda
  std::optional<double> step_change_error;  ///< its Monte Carlo error
  /// Richardson's extrapolation to eps = 0 of the two: what is left of the bias is of second order in eps, so that it
  /// is lambda + 4/3 step_change. Offered beside `lambda`, with an error of its own, and no part of it.
  std::optional<double> richardson;
  std::optional<double> gamma_change;        ///< lambda less lambda_hat at four times gamma; gamma found only
  std::optional<double> gamma_change_error;  ///< its Monte Carlo error
  /// What of gamma's bias is left, seen beyond the noise: the rest of the geometric series of such changes. It is no
  /// part of lambda.
  std::optional<double> gamma_bias;
  /// Linear response: what halving gamma would add to lambda, log(2) (gamma/2) Cov(n beta L, |w - w*|^2).
  std::optional<double> gamma_response;
  std::optional<double> gamma_response_error;  ///< its Monte Carlo error

  /// n E[L_n(w)] over the draws: WBIC (Watanabe 2013), localised. Plain kind at beta = 1/log n only.
  std::optional<double> wbic;
  /// sum_i Var[log p(y_i | x_i, w)] over the draws (Watanabe 2010). Plain kind, all samples only.
  std::optional<double> functional_variance;
  /// beta/2 times that, beta = n_beta / n: the singular fluctuation at the chains' temperature; d/2 for a regular
  /// model.
  std::optional<double> singular_fluctuation;

  double n_beta = 0;
  double gamma = 0;
  double resolution = 0;  ///< gamma / (n beta): the curvature below which a direction hardly counts
  double step_size = 0;
  double relaxation = 0;  ///< 2 / (eps gamma): steps in which a direction held by gamma alone relaxes
  double mu_max = 0;      ///< largest curvature of L_n that was found; RmspropSgld: of L_n in w / sqrt(P)
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
  std::string sampler;   ///< "sgld", "rmsprop_sgld", "mala" or "averaged_noise"
  std::string replicas;  ///< how the chains got their models: "clone", "factory" or "in turn"
  double seconds = 0;

  std::vector<LlcTrial> trials;  ///< in the order in which they ran; the estimate is the one that was "taken"

  /// On request: n beta (L(w) - L(w*)) less its discretisation, one vector of draws a chain.
  std::vector<std::vector<double>> trace;
  /// On request: (chains, kept draws, parameters), in the chain's dtype, on its device; weights in the order of
  /// `named_parameters()`, those that move.
  at::Tensor weights;
};

/// Estimates the LLC of the model at its present weights over the data. Runs in eval mode, so that dropout is off and
/// batch norm uses its running statistics, in the model's own dtype (or fp64) and on its own device; leaves mode,
/// weights, buffers, gradients and the default generator as they were, also when it ends by an exception, and no
/// recorder sees it. Not while another thread trains the model. Parameters that do not require grad stay where they
/// are; those that the loss does not depend on are held by gamma alone.
///
/// Throws InvalidArgument for a model without parameters, patterns that select none, data without targets, fewer
/// samples than a batch, or options out of range, and what `forward` throws. A chain that diverges, a loss that is not
/// finite at w*, a budget that ends or a cancelled run is a verdict, not an exception.
LlcEstimate estimate_llc(const Problem& problem, const LlcOptions& options = {});

}  // namespace dds
