// Where per-sample gradients come from: a pass that the library runs, or a step of the user's.
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/per_sample.hpp>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/per_sample/gradients.hpp"
#include "src/per_sample/operator_uses.hpp"

namespace dds {
namespace {

using hooks::SampleRows;
using Edges = torch::autograd::edge_list;

/// Throws CaptureError if rows were lost.
void check_whole(const Captured& captured) {
  if (captured.errors.empty()) return;
  throw CaptureError(fmt::format("{}: rows were lost: {}", kPerSampleGradients, captured.errors.front()));
}

/// Gradients of sum_i weights_i losses_i where `edges` come in; undefined where none does. Nothing else is computed:
/// not those of the weights. Keeps the graph.
std::vector<at::Tensor> gradients_at(const at::Tensor& losses, const at::Tensor& weights, const Edges& edges) {
  if (edges.empty()) return {};
  return torch::autograd::Engine::get_default_engine().execute({torch::autograd::impl::gradient_edge(losses)},
                                                               {weights}, /*keep_graph=*/true, /*create_graph=*/false,
                                                               /*accumulate_grad=*/false, edges);
}

/// A captured call with what is asked for it.
struct Asked {
  const CapturedLayer* site;
  const CapturedCall* call;
  std::optional<SampleRows> rows;
  std::size_t first;  ///< of its edges

  /// Its edges: that of the output, then those of the states.
  std::pair<std::size_t, std::size_t> range() const {
    return {first, first + 1 + call->captured_operator()->states.size()};
  }
};

/// The pass that the library runs itself.
class OwnPass {
 public:
  OwnPass(const Problem& problem, const PerSampleOptions& options)
      : model_(problem.model),
        likelihood_(*problem.likelihood),
        data_(problem.data),
        forward_(problem.forward),
        options_(options) {}

  std::shared_ptr<PerSampleGradients::Impl> run() {
    const at::AutoGradMode grad(true);
    auto impl = std::make_shared<PerSampleGradients::Impl>(model_, data_.size(), options_);
    RecorderOptions recorder_options;
    recorder_options.layers = options_.layers();
    recorder_options.exclusive = true;
    recorder_options.operators = true;
    recorder_options.graph = true;
    Recorder recorder(model_, std::move(recorder_options));
    recorder.start();
    const Data data = copy_of(data_);
    const at::Tensor output = forward_(model_, data.inputs);
    Captured captured = recorder.take();
    check_whole(captured);
    check_output(output, data.size(), kPerSampleGradients);
    losses_ = likelihood_.loss(output, data.targets);
    check(losses_.dim() == 1 && losses_.size(0) == data_.size(), kPerSampleGradients,
          fmt::format("the loss of {}", likelihood_.name()), losses_, fmt::format("shape [{}]", data_.size()));
    impl->mark_coupled(captured);
    if (losses_.requires_grad()) add_calls(captured, *impl);
    impl->mark_missing(captured);
    if (losses_.requires_grad()) {
      if (options_.verify()) verify(*impl);
      if (options_.one_by_one()) add_one_by_one(*impl);
    }
    impl->settle();
    return impl;
  }

 private:
  void add_calls(const Captured& captured, PerSampleGradients::Impl& impl) {
    std::vector<Asked> asked;
    Edges edges;
    for (const CapturedLayer& site : captured.layers) {
      for (const CapturedCall& call : site.calls) {
        const hooks::CapturedOperator* op = call.captured_operator().get();
        if (!op || !call.wants_gradient) continue;  // a tap, or a frozen part
        asked.push_back({&site, &call, impl.told_rows(site, call), edges.size()});
        edges.insert(edges.end(), op->edges.begin(), op->edges.end());
      }
    }
    const auto deltas = gradients_at(losses_, at::ones_like(losses_), edges);
    measure(asked, edges, deltas);
    for (const Asked& a : asked) {
      const auto [from, to] = a.range();
      impl.add(
          *a.site, *a.call, a.rows, deltas[from],
          {deltas.begin() + static_cast<std::ptrdiff_t>(from) + 1, deltas.begin() + static_cast<std::ptrdiff_t>(to)});
    }
    for (const hooks::Uses::Derived& weight : impl.take_derived()) follow(weight, impl);
  }

  /// What is not told is measured.
  void measure(std::vector<Asked>& asked, const Edges& edges, const std::vector<at::Tensor>& deltas) const {
    struct Open {
      Asked& asked;
      Edges edges;
      std::optional<std::int64_t> dim;
      hooks::SampleMeasurement measurement;
    };
    std::vector<Open> open;
    Edges wanted;
    bool narrow = losses_.scalar_type() == at::kHalf;
    for (Asked& a : asked) {
      const auto [from, to] = a.range();
      const auto arrived = hooks::arrived_at(*a.call, at::TensorList(deltas).slice(from, to - from));
      if (a.rows || !arrived.gradient.defined()) continue;
      open.push_back(
          {a,
           {edges.begin() + static_cast<std::ptrdiff_t>(from), edges.begin() + static_cast<std::ptrdiff_t>(to)},
           arrived.dim,
           {arrived.gradient, arrived.dims}});
      wanted.insert(wanted.end(), open.back().edges.begin(), open.back().edges.end());
      narrow = narrow || arrived.gradient.scalar_type() == at::kHalf;
    }
    const hooks::TellingWeights weights(losses_.size(0), narrow);
    for (std::int64_t pass = 0; pass < weights.passes() && !open.empty(); ++pass) {
      const auto weighted = gradients_at(losses_, weights.weights(pass, losses_.options()), wanted);
      std::size_t next = 0;
      for (Open& o : open) {
        const auto gradients = at::TensorList(weighted).slice(next, o.edges.size());
        o.measurement.add(hooks::arrived_at(*o.asked.call, gradients).gradient, weights);
        next += o.edges.size();
      }
    }
    for (Open& o : open) {
      o.asked.rows = o.measurement.rows(weights);
      if (o.asked.rows && o.dim) o.asked.rows->dim = *o.dim;
    }
  }

  /// Gradients with respect to parameters, those of tied leaves added; undefined where there is none. Keeps the graph.
  static std::vector<at::Tensor> gradients_of(const at::Tensor& output, const at::Tensor& weights,
                                              const PerSampleGradients::Impl& impl,
                                              const std::vector<std::size_t>& parameters) {
    std::vector<at::Tensor> leaves, sums;
    for (const std::size_t p : parameters) {
      const auto& of = impl.parameters()[p].leaves;
      leaves.insert(leaves.end(), of.begin(), of.end());
    }
    const auto gradients = torch::autograd::grad({output}, leaves, {weights}, true, false, true);
    std::size_t next = 0;
    for (const std::size_t p : parameters) {
      at::Tensor& sum = sums.emplace_back();
      for (std::size_t i = 0; i < impl.parameters()[p].leaves.size(); ++i, ++next) {
        if (gradients[next].defined()) sum = sum.defined() ? sum.add(gradients[next]) : gradients[next];
      }
    }
    return sums;
  }

  template <class Wanted>
  static std::vector<std::size_t> parameters_where(const PerSampleGradients::Impl& impl, const Wanted& wanted) {
    std::vector<std::size_t> result;
    for (std::size_t p = 0; p < impl.parameters().size(); ++p) {
      if (wanted(impl.parameters()[p])) result.push_back(p);
    }
    return result;
  }

  /// From a computed weight to the parameters that it was computed from, sample by sample.
  static void follow(const hooks::Uses::Derived& derived, PerSampleGradients::Impl& impl) {
    const auto all = parameters_where(impl, [](const auto&) { return true; });
    std::vector<std::vector<at::Tensor>> rows(all.size());
    for (std::int64_t i = 0; i < derived.gradients.size(0); ++i) {
      const auto gradients = gradients_of(derived.weight, derived.gradients[i], impl, all);
      for (std::size_t p = 0; p < all.size(); ++p) {
        if (gradients[p].defined()) rows[p].push_back(gradients[p]);
      }
    }
    for (std::size_t p = 0; p < all.size(); ++p) {
      if (!rows[p].empty()) impl.add_rows(p, at::stack(rows[p]));
    }
  }

  /// Marks parameters whose gradient is not the sum of what was captured: they have uses beside. Samples have weights
  /// that tell them apart: in a plain sum, what a use gives to one sample may cancel what it gives to another.
  void verify(PerSampleGradients::Impl& impl) const {
    const auto exact = parameters_where(impl, [](const auto& parameter) {
      const at::ScalarType type = real_type(parameter.tensor.scalar_type());
      return !parameter.status.no_numbers() && (type == at::kFloat || type == at::kDouble);
    });
    if (exact.empty()) return;
    const auto weights =
        hooks::TellingWeights(impl.samples(), losses_.scalar_type() == at::kHalf).weights(0, losses_.options());
    const auto gradients = gradients_of(losses_, weights, impl, exact);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const auto& parameter = impl.parameters()[exact[i]];
      const at::Tensor sum = impl.weighted_sum(parameter, weights);
      const at::Tensor whole = gradients[i].defined() ? gradients[i] : at::zeros_like(sum);
      const double eps = machine_epsilon(real_type(parameter.tensor.scalar_type()), kPerSampleGradients);
      const double apart = (sum - whole).norm().item<double>(), size = whole.norm().item<double>();
      if (!(apart > 1e3 * eps * size)) continue;
      // Gradients of samples that cancel leave their rounding.
      const double samples = static_cast<double>(impl.samples());
      const at::Tensor norms = parameter.terms.weighted(weights).squared_norms(options_.max_bytes());
      const double squares = norms.sum().item<double>();
      if (!(apart > 1e3 * eps * std::sqrt(samples * squares))) continue;
      impl.mark(
          exact[i], Status::NotObservable,
          fmt::format("it has uses beside those that were captured, which make up {:.1e} of its gradient's norm {:.1e}",
                      apart, size));
    }
  }

  void add_one_by_one(PerSampleGradients::Impl& impl) const {
    const auto missing = parameters_where(impl, [](const auto& parameter) { return parameter.status.no_numbers(); });
    if (missing.empty()) return;
    std::vector<std::vector<at::Tensor>> rows(missing.size());
    for (std::int64_t i = 0; i < losses_.size(0); ++i) {
      const auto gradients = gradients_of(losses_[i], at::ones_like(losses_[i]), impl, missing);
      for (std::size_t p = 0; p < missing.size(); ++p) {
        if (gradients[p].defined()) rows[p].push_back(gradients[p]);
      }
    }
    for (std::size_t p = 0; p < missing.size(); ++p) {
      if (!rows[p].empty()) impl.replace_rows(missing[p], at::stack(rows[p]));
    }
  }

  torch::nn::Module& model_;
  const Likelihood& likelihood_;
  const Data& data_;
  const Forward& forward_;
  const PerSampleOptions& options_;
  at::Tensor losses_;
};

}  // namespace

PerSampleGradients per_sample_gradients(const Problem& problem, const PerSampleOptions& options) {
  check_with_targets(problem, "per_sample_gradients");
  check(options.scale() == 1, kPerSampleGradients, "scale", options.scale(),
        "1 where the library runs the model on per-sample losses");
  const ModelGuard guard(problem.model);
  return PerSampleGradients(OwnPass(problem, options).run());
}

PerSampleGradients per_sample_gradients(torch::nn::Module& model, const Captured& captured, std::int64_t samples,
                                        const PerSampleOptions& options) {
  check(!options.one_by_one(), kPerSampleGradients, "one_by_one", options.one_by_one(),
        "false for a recording, whose backward pass is over");
  check_whole(captured);
  auto impl = std::make_shared<PerSampleGradients::Impl>(model, samples, options);
  impl->mark_coupled(captured);
  for (const CapturedLayer& site : captured.layers) {
    for (const CapturedCall& call : site.calls) {
      if (site.kind == "Tap") continue;
      const hooks::CapturedOperator* op = call.captured_operator().get();
      if (!op)
        throw_invalid(kPerSampleGradients, "captured", "without operators",
                      "a recording with RecorderOptions::operators");
      std::vector<at::Tensor> states;
      for (const CapturedCall& state : op->states) states.push_back(state.gradient());
      std::string doubt;
      const auto rows = impl->known_rows(site, call, doubt);
      impl->add(site, call, rows, call.gradient(), std::move(states), doubt);
      if (rows && op->axes && op->axes->mixed(op->output_axes[static_cast<std::size_t>(rows->dim)]) > call.order)
        impl->mark(site, Status::Coupled, kMixesSamples);
    }
  }
  impl->mark_uses_beside(captured);
  impl->mark_missing(captured);
  impl->settle();
  return PerSampleGradients(std::move(impl));
}

}  // namespace dds
