#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/bernoulli.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <c10/core/GradMode.h>
#include <c10/util/StringUtil.h>
#include <fmt/format.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/model.hpp>
#include <tuple>

#include "src/model/cancellation.hpp"
#include "src/model/divergence.hpp"

namespace dds {
namespace {

/// The largest number of backward passes that an exact expectation may take.
constexpr std::int64_t kMaxFisherTerms = 32;

void check_output(const char* who, const at::Tensor& output, std::int64_t min_dim) {
  if (!output.defined() || !at::isFloatingType(output.scalar_type()) || output.dim() < min_dim || output.size(0) == 0) {
    const std::string found =
        output.defined() ? c10::str(output.scalar_type(), " of shape ", output.sizes()) : std::string("undefined");
    throw InvalidArgument(c10::str(who, ": the model's output is ", found,
                                   "; expected floating-point numbers with at least ", min_dim,
                                   " dimensions, the first counting the samples"));
  }
}

/// Refuses targets of another shape, which would broadcast in silence.
void check_target_shape(const char* who, const at::Tensor& target, at::IntArrayRef expected) {
  if (!target.defined()) throw InvalidArgument(c10::str(who, ": no targets; expected shape ", expected));
  if (target.sizes() != expected) {
    throw InvalidArgument(
        c10::str(who, ": targets have shape ", target.sizes(), "; expected ", expected, " for the model's output"));
  }
}

/// Sum over everything but the samples: (n, ...) -> (n).
at::Tensor per_sample(const at::Tensor& terms) { return terms.dim() == 1 ? terms : terms.flatten(1).sum(1); }

/// Values of one sample: (n, ...) -> (n, d).
at::Tensor rows(const at::Tensor& output) { return output.reshape({output.size(0), -1}); }

/// d where the exact expectation takes one term for each of a sample's d values, 0 where these are too many.
std::int64_t terms_of_values(const at::Tensor& output) {
  const auto values = output.numel() / output.size(0);
  return values <= kMaxFisherTerms ? values : 0;
}

void check_term(const Likelihood& likelihood, const at::Tensor& output, std::int64_t k) {
  const auto terms = likelihood.fisher_terms(output);
  if (k < 0 || k >= terms) {
    throw InvalidArgument(c10::str(likelihood.name(), ": Fisher term ", k, " of an output of shape ", output.sizes(),
                                   "; expected 0 <= k < ", terms));
  }
}

class Categorical final : public Likelihood {
 public:
  explicit Categorical(std::int64_t ignore_index) : ignore_index_(ignore_index) {}

  std::string name() const override { return "categorical"; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("categorical", output, 2);
    check_targets(output, target);
    const auto classes = output.size(-1);
    const auto log_p = at::log_softmax(output, -1).reshape({-1, classes});
    const auto terms = at::nll_loss(log_p, target.reshape({-1}), {}, at::Reduction::None, ignore_index_);
    return per_sample(terms.view(target.sizes()));
  }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    const c10::NoGradGuard no_grad;
    check_output("categorical", output, 2);
    // A row of NaN draws any class: its loss is NaN all the same, and a reading says so.
    const auto p = at::softmax(output, -1).nan_to_num(1.0).reshape({-1, output.size(-1)});
    return at::multinomial(p, 1, true, std::move(generator)).view(output.sizes().slice(0, output.dim() - 1));
  }

  std::int64_t fisher_terms(const at::Tensor& output) const override {
    return output.dim() == 2 && output.size(1) <= kMaxFisherTerms ? output.size(1) : 0;
  }

  at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const override {
    check_output("categorical", output, 2);
    check_term(*this, output, k);
    const auto log_p = at::log_softmax(output, 1).select(1, k);
    return (log_p.detach() * 0.5).exp() * -log_p;
  }

  /// The exact expectation weights the classes by their probabilities, which sum to one.
  at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const override {
    return softmax_terms(output, output.dim() - 1);
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    return per_sample(divergence_terms(at::log_softmax(frozen, -1), at::log_softmax(output, -1)));
  }

 private:
  void check_targets(const at::Tensor& output, const at::Tensor& target) const {
    check_target_shape("categorical", target, output.sizes().slice(0, output.dim() - 1));
    if (target.scalar_type() != at::kLong) {
      throw InvalidArgument(c10::str("categorical: targets are ", target.scalar_type(), "; expected int64 classes"));
    }
    const auto classes = output.size(-1);
    // One pass over the targets in the usual case; the ignored ones are looked at only if something is out of range.
    const auto range = at::aminmax(target);
    if (in_range(std::get<0>(range), classes) && in_range(std::get<1>(range), classes)) return;
    const auto wrong =
        target.masked_select(target.ne(ignore_index_).logical_and(target.lt(0).logical_or(target.ge(classes))));
    if (wrong.numel() == 0) return;
    throw InvalidArgument(c10::str("categorical: target ", wrong[0].item<std::int64_t>(), "; expected 0 to ",
                                   classes - 1, " (", classes, " classes), or ", ignore_index_, " to ignore it"));
  }

  static bool in_range(const at::Tensor& value, std::int64_t classes) {
    const auto index = value.item<std::int64_t>();
    return index >= 0 && index < classes;
  }

  std::int64_t ignore_index_;
};

class Bernoulli final : public Likelihood {
 public:
  std::string name() const override { return "bernoulli"; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("bernoulli", output, 1);
    check_target_shape("bernoulli", target, output.sizes());
    const auto y = target.to(output.scalar_type());
    const auto range = at::aminmax(y);
    const auto low = std::get<0>(range).item<double>(), high = std::get<1>(range).item<double>();
    if (!(low >= 0 && high <= 1)) {
      throw InvalidArgument(fmt::format("bernoulli: target {:g}; expected 0 to 1", low >= 0 ? high : low));
    }
    return per_sample(at::softplus(output) - output * y);  // -log p(y | z) = log(1 + e^z) - y z
  }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    const c10::NoGradGuard no_grad;
    check_output("bernoulli", output, 1);
    return at::bernoulli(at::sigmoid(output).nan_to_num(0.5), std::move(generator));
  }

  std::int64_t fisher_terms(const at::Tensor& output) const override { return terms_of_values(output); }

  at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const override {
    check_output("bernoulli", output, 1);
    check_term(*this, output, k);
    const auto z = rows(output).select(1, k);
    const auto constant = z.detach();
    return (at::sigmoid(constant) * at::sigmoid(-constant)).sqrt() * z;  // p (1 - p), without cancellation at p = 1
  }

  /// Exactly, nothing cancels, but the terms move with the logits: d log sqrt(p (1 - p)) <= dz / 2.
  at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const override {
    if (!exact) return logistic_terms(output);
    const c10::NoGradGuard no_grad;
    return norm_of((at::sigmoid(output) * at::sigmoid(-output)).sqrt() * output) * 0.5;
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    const auto log_p = [](const at::Tensor& z) { return -at::softplus(-z, 1, /*threshold=*/700); };
    return per_sample(divergence_terms(log_p(frozen), log_p(output)) +
                      divergence_terms(log_p(-frozen), log_p(-output)));
  }
};

class Gaussian final : public Likelihood {
 public:
  explicit Gaussian(double sigma) : sigma_(sigma) {
    if (!(sigma > 0) || !std::isfinite(sigma)) {
      throw InvalidArgument(fmt::format("gaussian: sigma = {:g}; expected a positive number", sigma));
    }
  }

  std::string name() const override { return fmt::format("gaussian({:g})", sigma_); }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("gaussian", output, 1);
    check_target_shape("gaussian", target, output.sizes());
    return per_sample(squares(output, target)) * (0.5 / (sigma_ * sigma_));
  }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    const c10::NoGradGuard no_grad;
    check_output("gaussian", output, 1);
    return output + sigma_ * at::randn(output.sizes(), std::move(generator), output.options());
  }

  std::int64_t fisher_terms(const at::Tensor& output) const override { return terms_of_values(output); }

  at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const override {
    check_output("gaussian", output, 1);
    check_term(*this, output, k);
    return rows(output).select(1, k) / sigma_;
  }

  at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const override {
    return square_terms(output) * (exact ? 0 : 1 / (sigma_ * sigma_));
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    const auto difference = output - frozen;
    return per_sample(difference * difference) * (0.5 / (sigma_ * sigma_));
  }

 private:
  /// One operator each way where there is one: for small networks the number of them is what a chain's step costs.
  /// LibTorch 1.13 has none for the types of half precision.
  static at::Tensor squares(const at::Tensor& output, const at::Tensor& target) {
    const auto type = output.scalar_type();
    if ((type == at::kFloat || type == at::kDouble) && target.scalar_type() == type)
      return at::mse_loss(output, target, at::Reduction::None);
    const auto residual = target - output;
    return residual * residual;
  }

  double sigma_;
};

/// The user's two functions, with the shape of what they return checked.
class Custom final : public Likelihood {
 public:
  using Loss = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;
  using Sample = std::function<at::Tensor(const at::Tensor&, at::Generator)>;

  Custom(std::string name, Loss loss, Sample sample)
      : name_(std::move(name)), loss_(std::move(loss)), sample_(std::move(sample)) {
    if (!loss_) throw InvalidArgument("likelihood \"" + name_ + "\": no loss function; expected one");
  }

  std::string name() const override { return name_; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    auto result = loss_(output, target);
    if (!result.defined() || result.dim() != 1 || result.size(0) != output.size(0)) {
      const std::string found = result.defined() ? c10::str("shape ", result.sizes()) : std::string("nothing");
      throw InvalidArgument(c10::str("likelihood \"", name_, "\": its loss returned ", found, "; expected [",
                                     output.size(0), "], one number a sample, not reduced"));
    }
    return result;
  }

  bool can_sample() const override { return static_cast<bool>(sample_); }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    if (!sample_) {
      throw InvalidArgument("likelihood \"" + name_ +
                            "\": it has no sample function, so the true Fisher cannot be read");
    }
    const c10::NoGradGuard no_grad;
    return sample_(output, std::move(generator));
  }

 private:
  std::string name_;
  Loss loss_;
  Sample sample_;
};

}  // namespace

at::Tensor Likelihood::fisher_term(const at::Tensor& output, std::int64_t k) const {
  throw InvalidArgument(name() + ": no exact expectation of the Fisher for this likelihood");
}

at::Tensor Likelihood::cancelling_terms(const at::Tensor&, bool) const { return {}; }

at::Tensor Likelihood::divergence(const at::Tensor&, const at::Tensor&) const {
  throw InvalidArgument(name() + ": no closed form of the divergence for this likelihood; expected categorical(), " +
                        "bernoulli() or gaussian()");
}

LikelihoodPtr categorical(std::int64_t ignore_index) { return std::make_shared<Categorical>(ignore_index); }

LikelihoodPtr bernoulli() { return std::make_shared<Bernoulli>(); }

LikelihoodPtr gaussian(double sigma) { return std::make_shared<Gaussian>(sigma); }

LikelihoodPtr likelihood(std::string name, std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> loss,
                         std::function<at::Tensor(const at::Tensor&, at::Generator)> sample) {
  return std::make_shared<Custom>(std::move(name), std::move(loss), std::move(sample));
}

}  // namespace dds
