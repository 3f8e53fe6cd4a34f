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

/// Samples: one or several input tensors and, where the likelihood needs them, targets. The first dimension of each
/// counts the samples.
struct Data {
  std::vector<at::Tensor> inputs;
  at::Tensor targets;  ///< may be undefined

  Data() = default;
  Data(at::Tensor input, at::Tensor targets = {}) : inputs{std::move(input)}, targets(std::move(targets)) {}
  Data(std::vector<at::Tensor> inputs, at::Tensor targets) : inputs(std::move(inputs)), targets(std::move(targets)) {}

  /// Number of samples. Throws InvalidArgument if there is no input, no sample, or if the tensors disagree on it.
  std::int64_t size() const;
  /// Samples begin <= i < end, as views.
  Data slice(std::int64_t begin, std::int64_t end) const;
  /// Samples at the given indices (1-d, int64, on the tensors' device), as copies.
  Data select(const at::Tensor& indices) const;
};

/// A likelihood p(y | f(x, w)): the per-sample loss, and what the true Fisher needs of it.
class Likelihood {
 public:
  virtual ~Likelihood() = default;

  /// For logs: "categorical", "gaussian(0.1)".
  virtual std::string name() const = 0;

  /// Per-sample negative log-likelihood, shape (n); sums over positions and dimensions of one sample. `target` as in
  /// Data.
  virtual at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const = 0;

  /// Targets drawn from the model's own predictive distribution, with `generator` (never the default one).
  virtual at::Tensor sample(const at::Tensor& output, at::Generator generator) const = 0;
  /// False where labels cannot be drawn: only the empirical Fisher can be read.
  virtual bool can_sample() const { return true; }

  /// Number of backward passes that the *exact* expectation of the true Fisher takes for such an output; 0 where there
  /// is none in closed form or it takes too many, and the read samples instead.
  virtual std::int64_t fisher_terms(const at::Tensor& output) const { return 0; }

  /// Term k of the exact expectation: shape (n); with t_k(i) its entries,
  ///   E_y [ grad l_i grad l_i^T ] = sum_k grad t_k(i) grad t_k(i)^T   for every sample i.
  virtual at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const;

  /// T of noise_floor's page: the norm of what cancels in the gradients at the output (0-d, fp64), for one label a
  /// sample, or for all terms of the exact expectation together. Undefined where it is not known, as by default: a
  /// reading then has Status::LossUnknown.
  virtual at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const;

  /// KL(p(. | frozen) || p(. | output)) of each sample, shape (n), for outputs of one shape: computed so that it keeps
  /// the rounding floor of a square, 1e-32 in fp64, where the two are close. Throws InvalidArgument where there is no
  /// closed form, as by default.
  virtual at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const;
};

using LikelihoodPtr = std::shared_ptr<const Likelihood>;

/// Softmax over the last dimension. Output (n, ..., C) of logits, targets (n, ...) of int64 class indices; positions
/// whose target is `ignore_index` do not count. -log p(y) = cross entropy. Exact expectation for outputs (n, C) with C
/// <= 32: t_c = stop_gradient(sqrt(p_c)) * (-log p_c).
LikelihoodPtr categorical(std::int64_t ignore_index = -100);

/// Independent Bernoulli variables from logits, output and targets (n, ...). Exact expectation for outputs of up to 32
/// values a sample: t_k = stop_gradient(sqrt(p_k (1 - p_k))) * z_k.
LikelihoodPtr bernoulli();

/// y = f + sigma * noise, output and targets (n, ...): -log p = |y - f|^2 / (2 sigma^2), constant left out. Exact
/// expectation for outputs of up to 32 values a sample: t_k = f_k / sigma.
LikelihoodPtr gaussian(double sigma = 1.0);

/// A likelihood of the user's own: per-sample loss, and a draw of targets given the output. With no `sample` function
/// only the empirical Fisher can be read.
LikelihoodPtr likelihood(std::string name,
                         std::function<at::Tensor(const at::Tensor& output, const at::Tensor& target)> loss,
                         std::function<at::Tensor(const at::Tensor& output, at::Generator)> sample = nullptr);

}  // namespace dds
