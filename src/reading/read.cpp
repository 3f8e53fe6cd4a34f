#include "src/reading/read.hpp"

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
#include <exception>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "src/base/logger.hpp"
#include "src/model/cancellation.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/random.hpp"
#include "src/ranks/exchange.hpp"
#include "src/ranks/tree.hpp"
#include "src/reading/layer_reading.hpp"

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

/// What came of the passes over a probe.
struct ProbeRows {
  std::vector<LayerReading> readings;
  std::map<std::string, std::size_t> places;  ///< of a layer's reading
  std::optional<FisherPlan> plan;
  Cancellation cancellation;

  LayerReading& of(const std::string& layer, const std::function<LayerReading()>& make) {
    const auto [place, is_new] = places.emplace(layer, readings.size());
    return is_new ? readings.emplace_back(make()) : readings[place->second];
  }
};

/// One checkpoint read: the probe in batches through the model, rows into a LayerReading for each layer.
class CheckpointRead {
 public:
  CheckpointRead(const Problem& problem, const ReadOptions& options)
      : model_(problem.model),
        likelihood_(*problem.likelihood),
        probe_(problem.data),
        forward_(problem.forward),
        options_(options) {
    RecorderOptions recorder;
    recorder.layers = options.reading().layers();
    recorder.exclusive = true;
    recorder_.emplace(model_, std::move(recorder));
    for (const at::Tensor& parameter : model_.parameters()) {
      if (parameter.is_floating_point()) parameters_.push_back(parameter);
    }
  }

  /// Under a guard that has put the model's parameters into `dtype` (none: their own).
  ProbeRows run(std::optional<at::ScalarType> dtype) {
    const std::int64_t samples = probe_.size();
    for (std::int64_t begin = 0; begin < samples; begin += options_.batch_size()) {
      batch(converted(probe_.slice(begin, std::min(samples, begin + options_.batch_size())), dtype));
    }
    return std::move(rows_);
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
    if (rows_.plan) return;
    if (options_.fisher() == Fisher::Empirical || !likelihood_.can_sample()) {
      if (!probe_.targets.defined()) {
        throw InvalidArgument(fmt::format(
            "read: the empirical Fisher needs targets, and the probe has none (likelihood {})", likelihood_.name()));
      }
      rows_.plan = FisherPlan{FisherPlan::Empirical, 1, "empirical"};
    } else if (const std::int64_t terms = likelihood_.fisher_terms(output); terms > 0) {
      rows_.plan = FisherPlan{FisherPlan::Exact, terms, "exact"};
    } else {
      rows_.plan = FisherPlan{FisherPlan::Sampled, options_.draws(), fmt::format("sampled:{}", options_.draws())};
    }
  }

  /// Per-sample scalars of backward pass k, the gradients of which are the rows of the Fisher side.
  at::Tensor term(const at::Tensor& output, const at::Tensor& targets, std::int64_t k) {
    switch (rows_.plan->kind) {
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
      if (!generator_.defined())
        generator_ = generator_for(output.device(), options_.reading().seed(), stream_of(options_.reading()));
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
    const bool exact = rows_.plan->kind == FisherPlan::Exact;
    const at::Tensor terms = likelihood_.cancelling_terms(output.detach(), exact);
    at::Tensor squares = at::zeros({}, output.options().dtype(at::kDouble).requires_grad(false));
    std::vector<at::Tensor> inputs = parameters_;
    inputs.push_back(output);
    for (std::int64_t k = 0; k < rows_.plan->passes; ++k) {
      const at::Tensor scalars = k == 0 ? std::exchange(first, {}) : term(output, data.targets, k);
      const at::Tensor at_output =
          torch::autograd::grad({scalars.sum()}, inputs, {}, /*retain_graph=*/k + 1 < rows_.plan->passes,
                                /*create_graph=*/false, /*allow_unused=*/true)
              .back();
      if (at_output.defined()) squares.add_(norm_of(at_output).square());
      add_gradients(captured, share);
    }
    const double labels = exact ? 1 : static_cast<double>(rows_.plan->passes);
    rows_.cancellation.add(terms.defined() ? Cancellation(terms.mul(std::sqrt(labels)), squares.sqrt())
                                           : Cancellation::unknown());
  }

  LayerReading& reading(const CapturedLayer& layer) {
    return rows_.of(layer.layer, [&] { return LayerReading(layer, options_.reading()); });
  }

  /// Rows that one call may add, of the budget for the whole reading.
  std::int64_t budget(const CapturedLayer& layer, double share, std::int64_t passes) const {
    const double rows = static_cast<double>(own_max_rows(options_.reading())) * share;
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
                          budget(layer, share, rows_.plan->passes));
      }
      into.reduce();
    }
  }

  torch::nn::Module& model_;
  const Likelihood& likelihood_;
  const Data& probe_;
  const Forward& forward_;
  const ReadOptions& options_;
  at::Generator generator_;
  std::optional<Recorder> recorder_;
  std::vector<at::Tensor> parameters_;
  ProbeRows rows_;
};

ProbeRows rows_in(std::optional<at::ScalarType> dtype, const Problem& problem, const ReadOptions& options) {
  GuardOptions guard_options;
  guard_options.dtype = dtype;
  const ModelGuard guard(problem.model, guard_options);
  return CheckpointRead(problem, options).run(dtype);
}

ProbeRows rows_of(const Problem& problem, const ReadOptions& options) {
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

std::vector<Signature> signatures_of(const ProbeRows& rows, const ReadOptions& options) {
  SignatureBatch batch(options.reading());
  for (const LayerReading& reading : rows.readings) {
    for (const Side side : options.reading().sides()) {
      Signature like;
      like.source = Source::Read;
      std::int64_t terms = 1;
      if (side == Side::Fisher) {
        like.fisher_kind = fisher_kind_from_string(rows.plan->name);
        like.reduction = "sum";
        if (rows.plan->kind == FisherPlan::Exact) terms = rows.plan->passes;
      }
      batch.add(reading, side, std::move(like), terms, side == Side::Fisher ? rows.cancellation : Cancellation());
    }
  }
  std::vector<Signature> result = batch.read();
  for (Signature& signature : result) {
    if (options.fp64() && signature.dtype && signature.dtype != at::kDouble) {
      signature.status |= Status::Fp64Unavailable;
    }
  }
  return result;
}

// ---- over several processes ----

void pack(const ProbeRows& rows, Parcel& parcel) {
  parcel.put(rows.plan->kind);
  parcel.put(rows.plan->passes);
  parcel.put(rows.plan->name);
  pack(rows.cancellation, parcel);
  parcel.put(rows.readings.size());
  for (const LayerReading& reading : rows.readings) reading.pack(parcel);
}

/// Joins another rank's rows, as they were packed.
void join(ProbeRows& rows, Parcel& parcel, const ReadOptions& options) {
  FisherPlan plan{parcel.take_up_to(FisherPlan::Empirical), parcel.take<std::int64_t>(), parcel.take<std::string>()};
  if (plan.name != rows.plan->name || plan.passes != rows.plan->passes) {
    throw RankError(
        fmt::format("read: a rank read the Fisher side {} in {} passes, another one {} in {}; expected the "
                    "same likelihood and options on all",
                    plan.name, plan.passes, rows.plan->name, rows.plan->passes));
  }
  rows.cancellation.add(unpack_cancellation(parcel));
  for (auto left = parcel.take<std::size_t>(); left > 0; --left) {
    LayerReading theirs = LayerReading::unpack(parcel, options.reading());
    bool is_new = false;
    LayerReading& own = rows.of(theirs.layer(), [&] {
      is_new = true;
      return theirs;
    });
    if (!is_new) own.merge(theirs);
  }
}

/// Collects the rows of all ranks on rank 0, and is true there. What went wrong on any of them, `own_error` on this
/// one, is thrown on all of them that can be reached.
bool collect(Tree& tree, const Ranks& ranks, std::optional<ProbeRows>& rows, const std::exception_ptr& own_error,
             const ReadOptions& options) {
  std::string error;
  if (own_error) error = fmt::format("read: rank {} of {}: {}", ranks.rank(), ranks.size(), text_of(own_error));
  const auto pack_all = [&] {
    Parcel parcel;
    parcel.put(error);
    if (error.empty()) pack(*rows, parcel);
    return parcel;
  };
  const auto join_theirs = [&](Parcel parcel) {
    const auto their_error = parcel.take<std::string>();
    if (error.empty()) error = their_error;
    if (!error.empty()) return;
    try {
      join(*rows, parcel, options);
    } catch (...) {
      error = text_of(std::current_exception());
    }
  };
  bool first = false;
  try {
    first = tree.gather(pack_all, join_theirs);
  } catch (const RankError&) {  // a loss, which the tree tells of on the way down
  }
  try {
    Parcel outcome;
    outcome.put(error);
    error = tree.spread(std::move(outcome)).take<std::string>();
  } catch (const RankError&) {
    if (!own_error) throw;
  }
  if (own_error) std::rethrow_exception(own_error);
  if (!error.empty()) throw RankError(error);
  return first;
}

void check(const Problem& problem, const ReadOptions& options) {
  check(options);
  check(problem, "read");
}

}  // namespace

std::vector<Signature> read(const Problem& problem, const ReadOptions& options) {
  if (const RanksPtr& ranks = options.reading().ranks()) {
    Tree tree(*ranks);
    return read(tree, problem, options);
  }
  check(problem, options);
  return signatures_of(rows_of(problem, options), options);
}

std::vector<Signature> read(Tree& tree, const Problem& problem, const ReadOptions& options, std::exception_ptr error) {
  std::optional<ProbeRows> rows;
  try {
    if (error) std::rethrow_exception(error);
    check(problem, options);
    if (tree.loss().empty()) rows = rows_of(problem, options);
  } catch (...) {
    error = std::current_exception();
  }
  if (!collect(tree, *options.reading().ranks(), rows, error, options)) return {};
  return signatures_of(*rows, options);
}

}  // namespace dds
