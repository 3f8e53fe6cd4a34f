#include "src/reading/checkpoint_rows.hpp"

#include <ATen/ops/mse_loss.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/recorder.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/base/logger.hpp"
#include "src/model/cancellation.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/random.hpp"
#include "src/reading/finite.hpp"

namespace dds {
namespace {

RecorderOptions recorder_options(const SignatureOptions& options) {
  RecorderOptions recorder;
  recorder.layers = options.layers();
  recorder.exclusive = true;
  return recorder;
}

class CheckpointReading {
 public:
  CheckpointReading(const Problem& problem, const ReadOptions& options)
      : problem_(problem),
        likelihood_(*problem.likelihood),
        options_(options),
        recorder_(problem.model, recorder_options(options.signatures())) {
    for (const at::Tensor& parameter : problem.model.parameters()) {
      if (is_differentiable(parameter.scalar_type())) parameters_.push_back(parameter);
    }
    const std::vector<Side>& sides = options.signatures().sides();
    wants_fisher_ = std::find(sides.begin(), sides.end(), Side::Fisher) != sides.end();
  }

  /// Under a guard that has put the model's parameters into `dtype` (none: their own).
  ReadingRows run(std::optional<at::ScalarType> dtype) {
    const std::int64_t samples = problem_.data.size();
    for (std::int64_t begin = 0; begin < samples; begin += options_.batch_size()) {
      batch(converted(problem_.data.slice(begin, std::min(samples, begin + options_.batch_size())), dtype), begin);
    }
    rows_.labels = *labels_;
    for (ReadingRows::Layer& layer : rows_.layers) {
      layer.reduction = "sum";
      layer.cancellation = cancellation_;
    }
    return std::move(rows_);
  }

 private:
  /// A copy, since a forward may write into its inputs.
  static Data converted(Data batch, std::optional<at::ScalarType> dtype) {
    const auto convert = [&](at::Tensor& tensor) {
      if (!tensor.defined()) return;
      const auto type = dtype ? at_precision(tensor.scalar_type(), *dtype) : tensor.scalar_type();
      tensor = tensor.to(type, /*non_blocking=*/false, /*copy=*/true);
    };
    for (at::Tensor& input : batch.inputs) convert(input);
    convert(batch.targets);
    return batch;
  }

  FisherLabels labels_for(const at::Tensor& output) const {
    if (options_.fisher() == Fisher::Empirical || !likelihood_.can_sample()) {
      check(problem_.data.targets.defined(), "read", "data.targets", problem_.data.targets,
            "targets, which the empirical Fisher needs (likelihood {})", likelihood_.name());
      return {FisherKind::Empirical, 1};
    }
    if (const std::int64_t terms = likelihood_.fisher_terms(output); terms > 0) return {FisherKind::Exact, terms};
    return {FisherKind(FisherKind::Sampled, options_.draws()), options_.draws()};
  }

  /// How many independent gradients a sample gives at the output: a softmax's sum to zero.
  std::int64_t independent_gradients(const at::Tensor& output) const {
    if (labels_->passes == 1) return 1;
    const std::int64_t values = output.numel() / output.size(0) - (likelihood_.name() == "categorical" ? 1 : 0);
    return std::clamp<std::int64_t>(values, 1, labels_->passes);
  }

  /// Per-sample scalars of backward pass k, whose gradients are the rows of the Fisher side.
  at::Tensor term(const at::Tensor& output, const at::Tensor& targets, std::int64_t k) {
    switch (labels_->kind.labels) {
      case FisherKind::Exact:
        return likelihood_.fisher_term(output, k);
      case FisherKind::Empirical:
        return likelihood_.loss(output, targets);
      case FisherKind::Sampled:
        break;
    }
    at::Tensor drawn;
    {
      const at::NoGradGuard no_grad;
      const SignatureOptions& options = options_.signatures();
      if (!generator_.defined()) generator_ = generator_for(output.device(), options.seed(), stream_of(options));
      drawn = likelihood_.sample(output, generator_);
    }
    return likelihood_.loss(output, drawn);
  }

  /// `begin`: the number of its first sample.
  void batch(const Data& data, std::int64_t begin) {
    const at::AutoGradMode grad(true);
    recorder_.start();
    const at::Tensor output = problem_.forward(problem_.model, data.inputs);
    check_output(output, data.size(), "read");
    if (!labels_) {
      labels_ = labels_for(output);
      independent_ = independent_gradients(output);
    }
    // The first term, and where its backward pass begins, are recorded: they decide the bounds on the gradients' ranks.
    const at::Tensor terms = term(output, data.targets, 0);
    at::Tensor first = terms.sum();
    // One term of a value each: a loss that takes them all stands for them.
    const bool by_value = labels_->kind.labels == FisherKind::Exact && likelihood_.name() != "categorical";
    seed_ = at::ones_like(by_value ? at::mse_loss(output, at::zeros_like(output)) : first);
    Captured captured = recorder_.take();
    if (!captured.errors.empty()) throw CaptureError(fmt::format("read: rows were lost: {}", captured.errors.front()));
    check_finite_inputs(data, begin, captured, output, parameters_);
    if (labels_->kind.labels == FisherKind::Empirical) {
      check_finite_targets(data, begin, output, terms);
    } else if (data.targets.defined() && wants_fisher_) {
      likelihood_.check_targets(output.detach(), data.targets);
    }
    const double share = static_cast<double>(data.size()) / static_cast<double>(problem_.data.size());
    add_forward(captured, share);
    if (output.requires_grad()) backward(output, data.targets, std::move(first), captured, share);
  }

  /// All backward passes of a batch, of which `first` is the first one's term.
  void backward(const at::Tensor& output, const at::Tensor& targets, at::Tensor first, Captured& captured,
                double share) {
    const bool exact = labels_->kind.labels == FisherKind::Exact;
    const at::Tensor terms = likelihood_.cancelling_terms(output.detach(), exact);
    at::Tensor squares = at::zeros({}, output.options().dtype(at::kDouble).requires_grad(false));
    std::vector<at::Tensor> inputs = parameters_;
    inputs.push_back(output);
    for (std::int64_t k = 0; k < labels_->passes; ++k) {
      const at::Tensor sum = k == 0 ? std::exchange(first, {}) : term(output, targets, k).sum();
      const at::Tensor at_output =
          torch::autograd::grad({sum}, inputs, {seed_}, /*retain_graph=*/k + 1 < labels_->passes,
                                /*create_graph=*/false, /*allow_unused=*/true)
              .back();
      if (at_output.defined()) squares.add_(norm_of(at_output).square());
      add_gradients(captured, share, /*again=*/exact && k > 0);
    }
    const double labels = exact ? 1 : static_cast<double>(labels_->passes);
    cancellation_.add(terms.defined() ? Cancellation(terms.mul(std::sqrt(labels)), squares.sqrt())
                                      : Cancellation::unknown());
  }

  LayerRows& rows_of(const CapturedLayer& layer) {
    if (ReadingRows::Layer* const known = rows_.find(layer.layer)) return known->rows;
    return rows_.layers.emplace_back(ReadingRows::Layer{.rows = LayerRows(layer, options_.signatures())}).rows;
  }

  /// What one call of `layer` brings in each of `passes`, in a batch that has `share` of all samples.
  static RowShare part(const CapturedLayer& layer, double share, std::int64_t passes) {
    return {share, static_cast<double>(passes) * static_cast<double>(layer.calls.size())};
  }

  void add_forward(const Captured& captured, double share) {
    for (const CapturedLayer& layer : captured.layers) {
      LayerRows& into = rows_of(layer);
      into.add_bounds(layer, independent_);
      for (const CapturedCall& call : layer.calls) into.add_forward(call, part(layer, share, 1));
      into.reduce();
    }
  }

  /// `again`: a further term of the expectation that the last rows began.
  void add_gradients(Captured& captured, double share, bool again) {
    for (CapturedLayer& layer : captured.layers) {
      LayerRows& into = rows_of(layer);
      again ? into.repeat_draws() : into.remember_draws();
      for (CapturedCall& call : layer.calls) {
        into.add_gradient(call, call.take_gradient(), /*backwards=*/1, /*scale=*/{},
                          part(layer, share, labels_->passes));
      }
      into.reduce();
    }
  }

  const Problem& problem_;
  const Likelihood& likelihood_;
  const ReadOptions& options_;
  Recorder recorder_;
  std::vector<at::Tensor> parameters_;
  bool wants_fisher_ = false;
  at::Generator generator_;
  at::Tensor seed_;                     ///< the gradient that a backward pass begins with: 1
  std::optional<FisherLabels> labels_;  ///< chosen by the first output
  std::int64_t independent_ = 1;        ///< gradients of a sample over all backward passes
  Cancellation cancellation_;
  ReadingRows rows_;
};

ReadingRows rows_in(std::optional<at::ScalarType> dtype, const Problem& problem, const ReadOptions& options) {
  GuardOptions guard_options;
  guard_options.dtype = dtype;
  const ModelGuard guard(problem.model, guard_options);
  return CheckpointReading(problem, options).run(dtype);
}

}  // namespace

ReadingRows checkpoint_rows(const Problem& problem, const ReadOptions& options) {
  if (options.fp64()) {
    try {
      return rows_in(at::kDouble, problem, options);
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const c10::Error& error) {
      // A forward that builds tensors of its own dtype cannot run in fp64. If something else is wrong, it throws again.
      const std::string what = error.what_without_backtrace();
      log::tell(Level::Warning, fmt::format("read: in the model's own dtype, since it does not run in fp64: {}",
                                            what.substr(0, what.find('\n'))));
    }
  }
  return rows_in(std::nullopt, problem, options);
}

}  // namespace dds
