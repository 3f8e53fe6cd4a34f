// From a checkpoint to a stationary point of the mean loss L_n near it.
//
// A checkpoint of a training is no minimum: L_n still falls from there. A learning coefficient belongs to a minimum,
// and chains that start at a checkpoint run downhill. `settle` goes down first:
//
//   Adam     with a rate that falls to zero (torch::optim::Adam), on all samples or on mini-batches. Control variates,
//            whose anchor moves up after each pass over the data, take the noise of the mini-batches away (SVRG,
//            Johnson and Zhang 2013)
//   L-BFGS   on all samples, with the strong Wolfe conditions (torch::optim::LBFGS; Nocedal and Wright 2006, chapter
//   7),
//            until the descent that is left is small:
//
//   A = (n beta)^2 g^T (n beta H + gamma)^-1 g,   at most (n beta |g|)^2 / gamma
//
// g and H are the gradient and the Hessian of L_n at the point. The plain estimate of the LLC is too small by A/2 to A.
//
//   const dds::Problem problem(*model, dds::categorical(), {images, labels});
//   const dds::Settled settled = dds::settle(problem, dds::SettleOptions().batch_size(512).gamma(1500));
//   dds::LlcEstimate llc = dds::estimate_llc(problem, dds::LlcOptions().batch_size(512).settle(dds::SettleOptions()));
//
// Not all data have a minimum. Where a network fits all labels, the cross entropy falls for ever as the weights grow.
// `settle` says so, and stops.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/patterns.hpp>
#include <dds/problem.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace DDS_EXPORT dds {

/// Settings of `settle`. In LlcOptions::settle, those marked (*) are taken from the LlcOptions.
struct SettleOptions {
  /// The full names of the parameters that move. (*)
  TORCH_ARG(Patterns, parameters) = std::nullopt;
  /// Samples per step of Adam. Passes over all samples go in pieces of this size, for the memory. At least 1; empty:
  /// all samples. (*)
  TORCH_ARG(std::optional<std::int64_t>, batch_size) = std::nullopt;
  /// Steps of Adam. At least 0.
  TORCH_ARG(std::int64_t, adam_steps) = 100;
  /// Rate of Adam's first step. It falls to zero in a straight line. No weight moves by much more than half of
  /// learning_rate * adam_steps. Positive.
  TORCH_ARG(double, learning_rate) = 1e-3;
  /// Most steps of L-BFGS. At least 0; 0: Adam alone.
  TORCH_ARG(std::int64_t, lbfgs_steps) = 200;
  /// A at which the point counts as stationary. Positive.
  TORCH_ARG(double, target_descent) = 0.05;
  /// n beta, positive. Empty: n / log n, which needs two samples. (*)
  TORCH_ARG(std::optional<double>, n_beta) = std::nullopt;
  /// gamma, positive. Empty: 0.03 min(n beta, sqrt(n beta)) times the root mean square of the curvatures at the
  /// checkpoint. (*, where it is given there)
  TORCH_ARG(std::optional<double>, gamma) = std::nullopt;
  /// Work in fp64 copies of weights, buffers and data. (*)
  TORCH_ARG(bool, fp64) = false;
  /// True: the point is written into the model. Never by estimate_llc.
  TORCH_ARG(bool, apply) = false;
  /// Of the order of the mini-batches. (*)
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Threads that share the samples of a pass. At least 1; empty: the machine's cores. The result does not depend on
  /// it. (*)
  TORCH_ARG(std::optional<std::int64_t>, threads) = std::nullopt;
  /// Makes a model of the same shape for the other threads, see LlcOptions::factory. (*)
  TORCH_ARG(std::function<std::shared_ptr<torch::nn::Module>()>, factory) = nullptr;
  /// Seconds after which to end where it is. Positive; empty: no limit. In LlcOptions::settle, empty: half of those of
  /// the estimate.
  TORCH_ARG(std::optional<double>, max_seconds) = std::nullopt;
  /// Budget of forward and backward passes of a batch (or piece). Positive; empty: no limit.
  TORCH_ARG(std::optional<std::int64_t>, max_gradients) = std::nullopt;
};

/// A point, and how far it is from a minimum and from where it came from.
struct Settled {
  /// The weights there, shape (d): those that move, in the order of `named_parameters()`, but complex ones first. In
  /// the dtype that it worked in. Undefined in LlcEstimate::settled.
  at::Tensor weights;

  double loss_before = 0;        ///< L_n at the checkpoint
  double loss_after = 0;         ///< L_n here. Never above loss_before
  double gradient_before = 0;    ///< |g| at the checkpoint
  double gradient_after = 0;     ///< |g| here
  double distance = 0;           ///< |w - w_checkpoint|
  double relative_distance = 0;  ///< distance / |w_checkpoint|; infinite for weights of zero that moved
  double descent = 0;            ///< upper bound of A here; on mini-batches, with H over the samples of four of them
  double n_beta = 0;
  double gamma = 0;

  /// L_n falls for ever along a ray from here, to 500 times the length of the weights: there is no minimum.
  bool no_minimum = false;
  /// Empty: `descent` is at most the target. Otherwise why it is not, such as "stopped after 20 s: descent 3.1 > 0.05".
  std::string failure;
  bool is_stationary() const { return failure.empty(); }

  std::int64_t gradients = 0;  ///< forward and backward passes of a batch (or piece) spent
  double seconds = 0;          ///< wall time
};

/// Goes from the present weights of the model to a stationary point of the mean loss.
///
/// The model runs as in `estimate_llc`: in eval mode, seen by no recorder. Weights, gradients, mode, buffers and the
/// default generator are left as they were, also after an exception. Only with SettleOptions::apply are the weights
/// written.
///
/// Result: see Settled. A budget that ends, a loss that is not finite and data without a minimum are failures in it, no
/// exceptions. The same options, model, data and seed give the same bits, whatever the number of threads, unless time
/// runs out.
///
/// A stationary point may be a saddle. L-BFGS seldom ends at one; `estimate_llc` looks.
///
/// Throws InvalidArgument for options out of range, patterns that select no parameter, data without targets, and fewer
/// samples than a batch. Throws whatever `forward` throws.
Settled settle(const Problem& problem, const SettleOptions& options = {});

}  // namespace dds
