// Data, and the likelihood of a model: with the model itself they make a Problem (<dds/problem.hpp>).
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

/// Samples: one or several input tensors, and targets where the likelihood needs them. The first dimension of each
/// tensor counts the samples.
struct Data {
  std::vector<at::Tensor> inputs;
  at::Tensor targets;  ///< may be undefined

  Data() = default;
  Data(at::Tensor input, at::Tensor targets = {}) : inputs{std::move(input)}, targets(std::move(targets)) {}
  Data(std::vector<at::Tensor> inputs, at::Tensor targets) : inputs(std::move(inputs)), targets(std::move(targets)) {}

  /// The number of samples.
  /// Throws InvalidArgument for no input, no sample, or tensors of different numbers of samples.
  std::int64_t size() const;
  /// The samples begin <= i < end, as views.
  /// Throws InvalidArgument unless 0 <= begin < end <= size().
  Data slice(std::int64_t begin, std::int64_t end) const;
  /// The samples at `indices` (1-d, int64, on the tensors' device), as copies.
  /// Throws InvalidArgument for indices of another shape or type.
  Data select(const at::Tensor& indices) const;
};

/// A likelihood p(y | f(x, w)), f the model's output: the loss of each sample, and what the true Fisher needs.
class Likelihood {
 public:
  virtual ~Likelihood() = default;

  /// For logs: "categorical", "gaussian(0.1)".
  virtual std::string name() const = 0;

  /// l_i = -log p(y_i | f_i), shape (n). Summed over the positions and dimensions of a sample, not reduced over
  /// samples.
  virtual at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const = 0;

  /// Targets drawn from p(. | output) with `generator`, never with the default one.
  virtual at::Tensor sample(const at::Tensor& output, at::Generator generator) const = 0;
  /// False where targets cannot be drawn. Only the empirical Fisher can be read then.
  virtual bool can_sample() const { return true; }

  /// The number of terms, each of which costs a backward pass, of the *exact* expectation of the true Fisher for such
  /// an output. 0 where it has no closed form or too many terms: a read then draws targets.
  virtual std::int64_t fisher_terms(const at::Tensor& output) const { return 0; }

  /// Term k of the exact expectation, 0 <= k < fisher_terms(output): t_k, shape (n), with
  ///   E_y [ grad l_i grad l_i^T ] = sum_k grad t_k(i) grad t_k(i)^T   for every sample i.
  /// Throws InvalidArgument where there is no such term.
  virtual at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const;

  /// T, which the floor of the Fisher side depends on (noise_floor in spectrum.hpp): the norm of the terms that cancel
  /// in the gradients at the output. 0-d, fp64. With one target a sample, or (`exact`) for all terms of the exact
  /// expectation together.
  /// Undefined where it is not known, as by default. A reading then has Status::LossUnknown.
  virtual at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const;

  /// KL(p(. | frozen) || p(. | output)) of each sample, shape (n), for outputs of one shape.
  /// Error: where the two are close, that of a square, 1e-32 in fp64.
  /// Throws InvalidArgument where there is no closed form, as by default.
  virtual at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const;
};

using LikelihoodPtr = std::shared_ptr<const Likelihood>;

/// Classes: the softmax over the last dimension of the logits.
///   -log p(y) = -log softmax(z)_y      exact expectation: t_c = stop_gradient(sqrt(p_c)) (-log p_c)
/// Output (n, ..., C), targets (n, ...) of class indices (int64). Positions with the target `ignore_index` do not
/// count. The exact expectation is for outputs (n, C) with C <= 32.
LikelihoodPtr categorical(std::int64_t ignore_index = -100);

/// Independent Bernoulli variables from logits.
///   -log p(y) = log(1 + e^z) - y z     exact expectation: t_k = stop_gradient(sqrt(p_k (1 - p_k))) z_k
/// Output and targets (n, ...), targets from 0 to 1. The exact expectation is for up to 32 values a sample.
LikelihoodPtr bernoulli();

/// y = f + sigma noise, noise ~ N(0, 1).
///   -log p(y) = |y - f|^2 / (2 sigma^2), less a constant     exact expectation: t_k = f_k / sigma
/// Output and targets (n, ...). The exact expectation is for up to 32 values a sample.
/// Throws InvalidArgument unless sigma is positive and finite.
LikelihoodPtr gaussian(double sigma = 1.0);

/// A likelihood of the user's own: its per-sample loss, and a draw of targets given the output. Without a `sample`
/// function only the empirical Fisher can be read.
/// Throws InvalidArgument for an empty `loss`.
LikelihoodPtr likelihood(std::string name,
                         std::function<at::Tensor(const at::Tensor& output, const at::Tensor& target)> loss,
                         std::function<at::Tensor(const at::Tensor& output, at::Generator)> sample = nullptr);

}  // namespace dds
