// Data and likelihoods. With a model they make a Problem (<dds/problem.hpp>).
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

/// Samples: input tensors, and targets where the likelihood needs them. The first dimension of each tensor counts the
/// samples.
struct Data {
  std::vector<at::Tensor> inputs;
  at::Tensor targets;  ///< may be undefined

  Data() = default;
  Data(at::Tensor input, at::Tensor targets = {}) : inputs{std::move(input)}, targets(std::move(targets)) {}
  Data(std::vector<at::Tensor> inputs, at::Tensor targets) : inputs(std::move(inputs)), targets(std::move(targets)) {}

  /// The number of samples.
  /// Throws InvalidArgument if there is no input or no sample, or if the tensors differ in their number of samples.
  std::int64_t size() const;
  /// Samples i with begin <= i < end, as views.
  /// Throws InvalidArgument unless 0 <= begin < end <= size().
  Data slice(std::int64_t begin, std::int64_t end) const;
  /// The samples at `indices` (1-d, int64, on the tensors' device), as copies.
  /// Throws InvalidArgument for indices of another shape or type.
  Data select(const at::Tensor& indices) const;
};

/// A likelihood p(y | f), f = f(x, w) the model's output: the loss of each sample, and what the true Fisher needs.
/// f_i and y_i are the output and the target of sample i, 1 <= i <= n.
class Likelihood {
 public:
  virtual ~Likelihood() = default;

  /// The name in logs: "categorical", "gaussian(0.1)".
  virtual std::string name() const = 0;

  /// l_i = -log p(y_i | f_i), shape (n): summed over the positions and dimensions of a sample, not reduced over
  /// samples.
  virtual at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const = 0;

  /// Throws InvalidArgument for targets that cannot belong to such an output: of another shape or type, a class beyond
  /// the last one, a probability beyond 1, a NaN. Targets that do not fit tell of a mistake even where they are not
  /// used, so a read with the true Fisher asks too.
  /// Default: takes all targets.
  virtual void check_targets(const at::Tensor& output, const at::Tensor& targets) const {}

  /// Targets drawn from p(. | output) with `generator`, never with the default one.
  virtual at::Tensor sample(const at::Tensor& output, at::Generator generator) const = 0;
  /// False if targets cannot be drawn. Then only the empirical Fisher can be read.
  virtual bool can_sample() const { return true; }

  /// The number of terms of the *exact* expectation of the true Fisher (fisher_term) for such an output. Each costs a
  /// backward pass. 0 if there is no closed form, or if it has too many terms: a read then draws targets.
  virtual std::int64_t fisher_terms(const at::Tensor& output) const { return 0; }

  /// Term t_k of the exact expectation, shape (n), where
  ///   E_y [ grad l_i grad l_i^T ] = sum_k grad t_k(i) grad t_k(i)^T   for every sample i.
  /// Throws InvalidArgument unless 0 <= k < fisher_terms(output).
  virtual at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const;

  /// T of noise_floor (spectrum.hpp): the norm of the terms that cancel in the gradient of the loss at the output. The
  /// floor of the Fisher side depends on it.
  /// `exact`: for all terms of the exact expectation together. Otherwise: for one target a sample.
  /// Result: 0-d, fp64. Undefined if T is not known, which is the default; a reading then has Status::LossUnknown.
  virtual at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const;

  /// KL(p(. | frozen) || p(. | output)) of each sample, shape (n).
  /// Valid input: two outputs of the same shape.
  /// Error: 1e-32 in fp64 where the two are close, since it is computed as a square.
  /// Throws InvalidArgument if there is no closed form, which is the default.
  virtual at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const;
};

using LikelihoodPtr = std::shared_ptr<const Likelihood>;

/// Classes with probabilities p = softmax(z), z the logits.
///   -log p(y) = -log softmax(z)_y      exact expectation: t_c = stop_gradient(sqrt(p_c)) (-log p_c)
/// Output: logits (n, ..., C), the classes along the last dimension.
/// Targets: class indices (n, ...), int64. Positions with the target `ignore_index` do not count.
/// The exact expectation exists for outputs (n, C) with C <= 32.
LikelihoodPtr categorical(std::int64_t ignore_index = -100);

/// Independent Bernoulli variables with probabilities p = 1 / (1 + e^-z), z the logits.
///   -log p(y) = log(1 + e^z) - y z     exact expectation: t_k = stop_gradient(sqrt(p_k (1 - p_k))) z_k
/// Output: logits (n, ...). Targets: the same shape, from 0 to 1.
/// The exact expectation exists for up to 32 values a sample.
LikelihoodPtr bernoulli();

/// Gaussian noise: y = f + sigma e, e ~ N(0, 1) in every entry.
///   -log p(y) = |y - f|^2 / (2 sigma^2) + constant     exact expectation: t_k = f_k / sigma
/// loss() leaves the constant out. Output and targets: (n, ...), of one shape.
/// The exact expectation exists for up to 32 values a sample.
/// Throws InvalidArgument unless sigma is positive and finite.
LikelihoodPtr gaussian(double sigma = 1.0);

/// A likelihood of the user's own.
/// `loss`: Likelihood::loss. `sample`: Likelihood::sample; without it only the empirical Fisher can be read.
/// Throws InvalidArgument for an empty `loss`.
LikelihoodPtr likelihood(std::string name,
                         std::function<at::Tensor(const at::Tensor& output, const at::Tensor& target)> loss,
                         std::function<at::Tensor(const at::Tensor& output, at::Generator)> sample = nullptr);

}  // namespace dds
