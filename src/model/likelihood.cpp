#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/bernoulli.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <dds/model.hpp>
#include <tuple>

#include "src/base/check.hpp"
#include "src/model/cancellation.hpp"
#include "src/model/divergence.hpp"

namespace dds {
namespace {

/// An exact expectation takes at most this many backward passes.
constexpr std::int64_t kMaxFisherTerms = 32;

void check_output(std::string_view function, const at::Tensor& output, std::int64_t least_dim) {
  check(output.defined() && at::isFloatingType(output.scalar_type()) && output.dim() >= least_dim && output.size(0) > 0,
        function, "the model's output", output,
        "a floating type and at least {} dimensions, the first of which counts the samples", least_dim);
}

void check_outputs(std::string_view function, const at::Tensor& frozen, const at::Tensor& output,
                   std::int64_t least_dim) {
  for (const at::Tensor& each : {frozen, output}) check_output(function, each, least_dim);
  check(output.sizes() == frozen.sizes(), function, "the model's output", output, "{}, as it was before",
        text_of(frozen));
}

/// Targets of another shape would be broadcast without a word.
void check_target_shape(std::string_view function, const at::Tensor& target, at::IntArrayRef expected) {
  if (target.defined() && target.sizes() == expected) return;
  throw_invalid(function, "target", text_of(target), text_of(expected) + ", as the model's output has it");
}

/// The sum over all dimensions but the first, which counts the samples: (n, ...) -> (n).
at::Tensor per_sample(const at::Tensor& terms) { return terms.dim() == 1 ? terms : terms.flatten(1).sum(1); }

/// The values of a sample in one row: (n, ...) -> (n, d).
at::Tensor rows(const at::Tensor& output) { return output.reshape({output.size(0), -1}); }

/// The number of terms where an exact expectation has one for each of a sample's values; 0 where that is too many.
std::int64_t terms_of_values(const at::Tensor& output) {
  const auto values = output.numel() / output.size(0);
  return values <= kMaxFisherTerms ? values : 0;
}

void check_term(const Likelihood& likelihood, const at::Tensor& output, std::int64_t k) {
  const auto terms = likelihood.fisher_terms(output);
  check(k >= 0 && k < terms, likelihood.name(), "k", k, "at least 0 and below {}, the number of terms", terms);
}

/// log(1 + e^x), and its slope, to rounding: of floating-point numbers above 40, it is x. LibTorch's own threshold is
/// 20, where e^-x still counts in fp64.
at::Tensor log_one_plus_exp(const at::Tensor& x) { return at::softplus(x, 1, /*threshold=*/40); }

/// -log p_y of each row of `log_p` (..., C), for classes y (...). log p_y itself is a rounding error where p_y is near
/// 1, and so is the slope p_y - 1. What the other classes have is exact there, and both are made of it:
///   -log p_y = log(1 + e^u),   u = log(sum over c != y of p_c) - log p_y
at::Tensor negative_log(const at::Tensor& log_p, const at::Tensor& y) {
  constexpr double kNothing = -1e4;  // e^-1e4 is 0 in every type
  const auto at_y = y.unsqueeze(-1);
  const auto others = at::logsumexp(at::scatter(log_p, -1, at_y, kNothing), {-1});
  return log_one_plus_exp(others - at::gather(log_p, -1, at_y).squeeze(-1));
}

class Categorical final : public Likelihood {
 public:
  explicit Categorical(std::int64_t ignore_index) : ignore_index_(ignore_index) {}

  std::string name() const override { return "categorical"; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("categorical", output, 2);
    const bool ignores = check_classes(output, target);
    const auto log_p = at::log_softmax(output, -1);
    if (!ignores) return per_sample(negative_log(log_p, target));
    const auto ignored = target.eq(ignore_index_);
    return per_sample(negative_log(log_p, target.masked_fill(ignored, 0)).masked_fill(ignored, 0));
  }

  void check_targets(const at::Tensor& output, const at::Tensor& targets) const override {
    check_output("categorical", output, 2);
    check_classes(output, targets);
  }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    const c10::NoGradGuard no_grad;
    check_output("categorical", output, 2);
    // From a row of NaN any class may be drawn: its loss is NaN whatever the class, and a reading says so.
    const auto p = at::softmax(output, -1).nan_to_num(1.0).reshape({-1, output.size(-1)});
    return at::multinomial(p, 1, true, std::move(generator)).view(output.sizes().slice(0, output.dim() - 1));
  }

  std::int64_t fisher_terms(const at::Tensor& output) const override {
    return output.dim() == 2 && output.size(1) <= kMaxFisherTerms ? output.size(1) : 0;
  }

  at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const override {
    check_output("categorical", output, 2);
    check_term(*this, output, k);
    const auto log_p = at::log_softmax(output, 1);
    const auto y = at::full({output.size(0)}, k, output.options().dtype(at::kLong).requires_grad(false));
    return (log_p.detach().select(1, k) * 0.5).exp() * negative_log(log_p, y);
  }

  /// The same for one label and for the exact expectation, whose weights p_c sum to one.
  at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const override {
    return softmax_terms(output, output.dim() - 1);
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    check_outputs("categorical", frozen, output, 2);
    return per_sample(divergence_terms(at::log_softmax(frozen, -1), at::log_softmax(output, -1)));
  }

 private:
  /// True if some may have to be ignored.
  bool check_classes(const at::Tensor& output, const at::Tensor& target) const {
    check_target_shape("categorical", target, output.sizes().slice(0, output.dim() - 1));
    check(target.scalar_type() == at::kLong, "categorical", "target", target, "Long: classes");
    const auto classes = output.size(-1);
    // In the usual case one pass over the targets is enough. Ignored ones are looked for only where one is out of
    // range.
    const auto range = at::aminmax(target);
    const auto least = std::get<0>(range).item<std::int64_t>(), most = std::get<1>(range).item<std::int64_t>();
    const bool ignores = least <= ignore_index_ && ignore_index_ <= most;
    if (least >= 0 && most < classes) return ignores;
    const auto wrong =
        target.masked_select(target.ne(ignore_index_).logical_and(target.lt(0).logical_or(target.ge(classes))));
    if (wrong.numel() == 0) return ignores;
    throw_invalid("categorical", "a target", value_text(wrong[0].item<std::int64_t>()),
                  fmt::format("0 to {}, the index of the last class, or {} where it is to be ignored", classes - 1,
                              ignore_index_));
  }

  std::int64_t ignore_index_;
};

class Bernoulli final : public Likelihood {
 public:
  std::string name() const override { return "bernoulli"; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("bernoulli", output, 1);
    check_target_shape("bernoulli", target, output.sizes());
    // With y the nearer of 0 and 1, a target is y + t or y - t, and u is z or -z:
    //   -log p = log(1 + e^z) - (target) z = log(1 + e^u) - t u,   0 <= t <= 1/2
    // Nothing cancels in it: where u is large, t u is at most half of the rest.
    const auto y = target.to(output.scalar_type());
    const auto t = at::minimum(y, at::rsub(y, 1));
    const auto range = at::aminmax(t);
    if (!(std::get<0>(range).item<double>() >= 0)) refuse_targets(y);
    const auto u = output * at::rsub(y.round(), 1, 2);
    const bool soft = std::get<1>(range).item<double>() > 0;
    return per_sample(soft ? log_one_plus_exp(u) - u * t : log_one_plus_exp(u));
  }

  void check_targets(const at::Tensor& output, const at::Tensor& targets) const override {
    const c10::NoGradGuard no_grad;
    loss(output, targets);  // which refuses them
  }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    const c10::NoGradGuard no_grad;
    check_output("bernoulli", output, 1);
    // In fp64: of a type with fewer digits p is rounded to 1 long before 1 - p is to 0.
    const auto p = at::sigmoid(output.to(at::kDouble)).nan_to_num(0.5);
    return at::bernoulli(p, std::move(generator)).to(output.scalar_type());
  }

  std::int64_t fisher_terms(const at::Tensor& output) const override { return terms_of_values(output); }

  at::Tensor fisher_term(const at::Tensor& output, std::int64_t k) const override {
    check_output("bernoulli", output, 1);
    check_term(*this, output, k);
    const auto z = rows(output).select(1, k);
    return deviation(z.detach()) * z;
  }

  /// In the exact expectation nothing cancels. But each term sqrt(p (1 - p)) moves with the rounding of its logit z, by
  /// |d log sqrt(p (1 - p))| <= |dz| / 2.
  at::Tensor cancelling_terms(const at::Tensor& output, bool exact) const override {
    if (!exact) return logistic_terms(output);
    const c10::NoGradGuard no_grad;
    return norm_of(deviation(output) * output) * 0.5;
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    check_outputs("bernoulli", frozen, output, 1);
    const auto log_p = [](const at::Tensor& z) { return -log_one_plus_exp(-z); };
    return per_sample(divergence_terms(log_p(frozen), log_p(output)) +
                      divergence_terms(log_p(-frozen), log_p(-output)));
  }

 private:
  /// sqrt(p (1 - p)) = e^(-|z|/2) / (1 + e^-|z|), the same for z and -z.
  static at::Tensor deviation(const at::Tensor& z) {
    const auto half = (z.abs() * -0.5).exp();
    return half / (half * half + 1);
  }

  [[noreturn]] static void refuse_targets(const at::Tensor& y) {
    const auto range = at::aminmax(y);
    const auto low = std::get<0>(range).item<double>(), high = std::get<1>(range).item<double>();
    throw_invalid("bernoulli", "a target", value_text(low >= 0 ? high : low), "at least 0 and at most 1");
  }
};

class Gaussian final : public Likelihood {
 public:
  explicit Gaussian(double sigma) : sigma_(sigma) {
    check_positive("gaussian", "sigma", sigma);
    int exponent = 0;
    std::frexp(sigma, &exponent);
    if (std::abs(exponent) > kPlainExponents) scale_ = std::ldexp(1.0, -exponent);
  }

  std::string name() const override { return fmt::format("gaussian({:g})", sigma_); }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    check_output("gaussian", output, 1);
    check_target_shape("gaussian", target, output.sizes());
    if (scale_ == 1) return per_sample(squares(output, target)) * half_precision(sigma_);
    return per_sample(squares(output * scale_, target * scale_)) * half_precision(sigma_ * scale_);
  }

  void check_targets(const at::Tensor& output, const at::Tensor& targets) const override {
    const c10::NoGradGuard no_grad;
    check_output("gaussian", output, 1);
    check_target_shape("gaussian", targets, output.sizes());
    const auto wrong = at::isfinite(targets).logical_not();
    if (!wrong.any().item<bool>()) return;
    throw_invalid("gaussian", "a target", value_text(targets.masked_select(wrong)[0].item<double>()),
                  "a finite number");
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
    const auto terms = square_terms(output * scale_) / (sigma_ * scale_) / sigma_;
    return exact ? terms * 0 : terms;
  }

  at::Tensor divergence(const at::Tensor& frozen, const at::Tensor& output) const override {
    check_outputs("gaussian", frozen, output, 1);
    const auto difference = (output - frozen) / sigma_;
    return per_sample(difference * difference) * 0.5;
  }

 private:
  /// One operator forward and one backward: in a chain on a small network, a step costs what its operators are in
  /// number. LibTorch 1.13 has no mse_loss for the types of half precision.
  static at::Tensor squares(const at::Tensor& output, const at::Tensor& target) {
    const auto type = output.scalar_type();
    if ((type == at::kFloat || type == at::kDouble) && target.scalar_type() == type)
      return at::mse_loss(output, target, at::Reduction::None);
    const auto residual = target - output;
    return residual * residual;
  }

  static double half_precision(double sigma) { return 0.5 / (sigma * sigma); }

  /// Squares of residuals leave the range of fp32, and that of sigma leaves fp64's, long before their quotient does.
  /// So a sigma far from 1 is brought near it first, by a power of two, which rounds nothing.
  static constexpr int kPlainExponents = 16;
  double sigma_;
  double scale_ = 1;
};

/// The user's two functions. The shape of what the loss returns is checked.
class Custom final : public Likelihood {
 public:
  using Loss = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;
  using Sample = std::function<at::Tensor(const at::Tensor&, at::Generator)>;

  Custom(std::string name, Loss loss, Sample sample)
      : name_(std::move(name)), loss_(std::move(loss)), sample_(std::move(sample)) {
    check_given("likelihood", fmt::format("the loss of '{}'", name_), loss_, "a function");
  }

  std::string name() const override { return name_; }

  at::Tensor loss(const at::Tensor& output, const at::Tensor& target) const override {
    auto result = loss_(output, target);
    check(result.defined() && result.dim() == 1 && result.size(0) == output.size(0), "likelihood",
          fmt::format("the loss of '{}'", name_), result, "[{}]: one number a sample, not reduced", output.size(0));
    return result;
  }

  bool can_sample() const override { return static_cast<bool>(sample_); }

  at::Tensor sample(const at::Tensor& output, at::Generator generator) const override {
    check_given("likelihood", fmt::format("the sample function of '{}'", name_), sample_,
                "one, which the true Fisher needs");
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
  throw_invalid("fisher_term", "the likelihood", fmt::format("'{}'", name()),
                "categorical(), bernoulli() or gaussian(): it has no closed form for others");
}

at::Tensor Likelihood::cancelling_terms(const at::Tensor&, bool) const { return {}; }

at::Tensor Likelihood::divergence(const at::Tensor&, const at::Tensor&) const {
  throw_invalid("divergence", "the likelihood", fmt::format("'{}'", name()),
                "categorical(), bernoulli() or gaussian(): it has no closed form for others");
}

LikelihoodPtr categorical(std::int64_t ignore_index) { return std::make_shared<Categorical>(ignore_index); }

LikelihoodPtr bernoulli() { return std::make_shared<Bernoulli>(); }

LikelihoodPtr gaussian(double sigma) { return std::make_shared<Gaussian>(sigma); }

LikelihoodPtr likelihood(std::string name, std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> loss,
                         std::function<at::Tensor(const at::Tensor&, at::Generator)> sample) {
  return std::make_shared<Custom>(std::move(name), std::move(loss), std::move(sample));
}

}  // namespace dds
