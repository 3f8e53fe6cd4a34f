#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <map>
#include <optional>
#include <utility>

#include "src/log/logger.hpp"
#include "src/model/guard.hpp"
#include "src/model/random.hpp"
#include "src/monitor/layer_reading.hpp"
#include "src/spectral/cancellation.hpp"

namespace dds {
namespace {

void check(const ReadOptions& options) {
  const auto at_least_one = [](const char* name, std::int64_t value) {
    if (value < 1) throw InvalidArgument(fmt::format("read: {} is {}, expected at least 1", name, value));
  };
  at_least_one("batch_size", options.batch_size());
  at_least_one("draws", options.draws());
  at_least_one("max_rows", options.reading().max_rows());
  at_least_one("max_width", options.reading().max_width());
  if (options.reading().sides().empty()) throw InvalidArgument("read: sides is empty, expected at least one Side");
}

/// The labels that the Fisher side will be read with, and how many backward passes a batch takes.
struct FisherPlan {
  enum Kind { Exact, Sampled, Empirical } kind;
  std::int64_t passes;
  std::string name;
};

/// One checkpoint read: the probe in batches through the model, rows into a LayerReading for each layer.
class CheckpointRead {
 public:
  CheckpointRead(torch::nn::Module& model, const Likelihood& likelihood, const Data& probe, const Forward& forward,
                 const ReadOptions& options)
      : model_(model), likelihood_(likelihood), probe_(probe), forward_(forward), options_(options) {
    RecorderOptions recorder;
    recorder.layers = options.reading().layers();
    recorder.exclusive = true;
    recorder_.emplace(model, std::move(recorder));
    for (const at::Tensor& parameter : model.parameters()) {
      if (parameter.is_floating_point()) parameters_.push_back(parameter);
    }
  }

  /// Under a guard that has put the model's parameters into `dtype` (none: their own).
  std::vector<Signature> run(std::optional<at::ScalarType> dtype) {
    const std::int64_t samples = probe_.size();
    for (std::int64_t begin = 0; begin < samples; begin += options_.batch_size()) {
      batch(converted(probe_.slice(begin, std::min(samples, begin + options_.batch_size())), dtype));
    }
    return signatures();
  }

 private:
  static Data converted(Data batch, std::optional<at::ScalarType> dtype) {
    if (!dtype) return batch;
    const auto convert = [&](at::Tensor& tensor) {
      if (tensor.defined() && tensor.is_floating_point()) tensor = tensor.to(*dtype);
    };
    for (at::Tensor& input : batch.inputs) convert(input);
    convert(batch.targets);
    return batch;
  }

  void choose_fisher(const at::Tensor& output) {
    if (plan_) return;
    if (options_.fisher() == Fisher::Empirical || !likelihood_.can_sample()) {
      if (!probe_.targets.defined()) {
        throw InvalidArgument(fmt::format(
            "read: the empirical Fisher needs targets, and the probe has none (likelihood {})", likelihood_.name()));
      }
      plan_ = FisherPlan{FisherPlan::Empirical, 1, "empirical"};
    } else if (const std::int64_t terms = likelihood_.fisher_terms(output); terms > 0) {
      plan_ = FisherPlan{FisherPlan::Exact, terms, "exact"};
    } else {
      plan_ = FisherPlan{FisherPlan::Sampled, options_.draws(), fmt::format("sampled:{}", options_.draws())};
    }
  }

  /// Per-sample scalars of backward pass k, the gradients of which are the rows of the Fisher side.
  at::Tensor term(const at::Tensor& output, const at::Tensor& targets, std::int64_t k) {
    switch (plan_->kind) {
      case FisherPlan::Exact:
        return likelihood_.fisher_term(output, k);
      case FisherPlan::Empirical:
        return likelihood_.loss(output, targets);
      case FisherPlan::Sampled:
        break;
    }
    at::Tensor drawn;
    {
      const at::NoGradGuard no_grad;
      if (!generator_.defined()) generator_ = generator_for(output.device(), options_.reading().seed());
      drawn = likelihood_.sample(output, generator_);
    }
    return likelihood_.loss(output, drawn);
  }

  void batch(const Data& data) {
    const at::AutoGradMode grad(true);
    recorder_->start();
    const at::Tensor output = forward_(model_, data.inputs);
    if (!output.defined() || output.dim() == 0 || output.size(0) != data.size()) {
      throw InvalidArgument(fmt::format("read: forward gave an output of {} samples for a batch of {}",
                                        output.defined() && output.dim() > 0 ? output.size(0) : 0, data.size()));
    }
    choose_fisher(output);
    // The first term is computed while recording: what reads the output decides the bound on its gradient's rank.
    at::Tensor first = term(output, data.targets, 0);
    Captured captured = recorder_->take();
    if (!captured.errors.empty()) throw CaptureError(fmt::format("read: rows were lost: {}", captured.errors.front()));

    const double share = static_cast<double>(data.size()) / static_cast<double>(probe_.size());
    add_forward(captured, share);
    if (!output.requires_grad()) return;
    const bool exact = plan_->kind == FisherPlan::Exact;
    const at::Tensor terms = likelihood_.cancelling_terms(output.detach(), exact);
    at::Tensor squares = at::zeros({}, output.options().dtype(at::kDouble).requires_grad(false));
    std::vector<at::Tensor> inputs = parameters_;
    inputs.push_back(output);
    for (std::int64_t k = 0; k < plan_->passes; ++k) {
      const at::Tensor scalars = k == 0 ? std::exchange(first, {}) : term(output, data.targets, k);
      const at::Tensor at_output =
          torch::autograd::grad({scalars.sum()}, inputs, {}, /*retain_graph=*/k + 1 < plan_->passes,
                                /*create_graph=*/false, /*allow_unused=*/true)
              .back();
      if (at_output.defined()) squares.add_(norm_of(at_output).square());
      add_gradients(captured, share);
    }
    const double labels = exact ? 1 : static_cast<double>(plan_->passes);
    cancellation_.add(terms.defined() ? Cancellation(terms.mul(std::sqrt(labels)), squares.sqrt())
                                      : Cancellation::unknown());
  }

  LayerReading& reading(const CapturedLayer& layer) {
    const auto known = places_.find(layer.layer);
    if (known != places_.end()) return readings_[known->second];
    places_.emplace(layer.layer, readings_.size());
    return readings_.emplace_back(layer, options_.reading());
  }

  /// Rows that one call may add, of the budget for the whole reading.
  std::int64_t budget(const CapturedLayer& layer, double share, std::int64_t passes) const {
    const double rows = static_cast<double>(options_.reading().max_rows()) * share;
    const double adds = static_cast<double>(passes) * static_cast<double>(layer.calls.size());
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(rows / adds));
  }

  void add_forward(const Captured& captured, double share) {
    for (const CapturedLayer& layer : captured.layers) {
      LayerReading& into = reading(layer);
      for (const CapturedCall& call : layer.calls)
        into.add_forward(call, std::ssize(layer.calls), budget(layer, share, 1));
      into.reduce();
    }
  }

  void add_gradients(Captured& captured, double share) {
    for (CapturedLayer& layer : captured.layers) {
      LayerReading& into = reading(layer);
      for (CapturedCall& call : layer.calls) {
        into.add_gradient(call, call.take_gradient(), /*backwards=*/1, /*scale=*/{}, std::ssize(layer.calls),
                          budget(layer, share, plan_->passes));
      }
      into.reduce();
    }
  }

  std::vector<Signature> signatures() const {
    SignatureBatch batch(options_.reading());
    for (const LayerReading& reading : readings_) {
      for (const Side side : options_.reading().sides()) {
        Signature like;
        like.source = "read";
        std::int64_t terms = 1;
        if (side == Side::Fisher) {
          like.fisher_kind = plan_->name;
          like.reduction = "sum";
          if (plan_->kind == FisherPlan::Exact) terms = plan_->passes;
        }
        batch.add(reading, side, std::move(like), terms, side == Side::Fisher ? cancellation_ : Cancellation());
      }
    }
    std::vector<Signature> result = batch.read();
    for (Signature& signature : result) {
      if (options_.fp64() && !signature.dtype.empty() && signature.dtype != c10::toString(at::kDouble)) {
        signature.status |= Status::Fp64Unavailable;
      }
    }
    return result;
  }

  torch::nn::Module& model_;
  const Likelihood& likelihood_;
  const Data& probe_;
  const Forward& forward_;
  const ReadOptions& options_;
  at::Generator generator_;
  std::optional<Recorder> recorder_;
  std::vector<at::Tensor> parameters_;
  std::optional<FisherPlan> plan_;
  Cancellation cancellation_;
  std::vector<LayerReading> readings_;
  std::map<std::string, std::size_t> places_;
};

std::vector<Signature> read_in(std::optional<at::ScalarType> dtype, torch::nn::Module& model,
                               const Likelihood& likelihood, const Data& probe, const Forward& forward,
                               const ReadOptions& options) {
  GuardOptions guard_options;
  guard_options.dtype = dtype;
  const ModelGuard guard(model, guard_options);
  return CheckpointRead(model, likelihood, probe, forward, options).run(dtype);
}

}  // namespace

std::vector<Signature> read(torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& probe,
                            const Forward& forward, const ReadOptions& options) {
  check(options);
  if (!likelihood) throw InvalidArgument("read: likelihood is null, expected categorical(), gaussian(), ...");
  probe.size();  // throws if there is nothing to read
  if (options.fp64()) {
    try {
      return read_in(at::kDouble, model, *likelihood, probe, forward, options);
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const c10::Error& error) {
      // A forward that builds tensors of its own dtype cannot run in fp64. If something else is wrong, it throws again.
      const std::string what = error.what_without_backtrace();
      log::tell(Level::Warning, fmt::format("read: in the model's own dtype, since it does not run in fp64: {}",
                                            what.substr(0, what.find('\n'))));
    }
  }
  return read_in(std::nullopt, model, *likelihood, probe, forward, options);
}

}  // namespace dds
