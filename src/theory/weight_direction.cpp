#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <dds/suspend_recording.hpp>
#include <dds/weight_direction.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/replica.hpp"
#include "src/theory/landscape.hpp"

namespace dds {
namespace {

/// The direction as one vector in the layout of a Replica over `names`.
at::Tensor flattened(const torch::nn::Module& model, const std::vector<std::string>& names,
                     const WeightDirection& direction) {
  const auto parameters = model.named_parameters();
  const std::vector<at::Tensor> order = distinct_parameters(model, names);
  std::vector<at::Tensor> parts;
  parts.reserve(order.size());
  for (const at::Tensor& parameter : order)
    parts.push_back(at::zeros({as_reals(parameter.detach()).numel()}, at::kDouble));
  for (const auto& [name, part] : direction) {
    const at::Tensor* const parameter = parameters.find(name);
    const auto place = std::find_if(order.begin(), order.end(),
                                    [&](const at::Tensor& other) { return parameter && other.is_same(*parameter); });
    if (place == order.end()) {
      throw_invalid("direction_order", "a parameter of the direction", fmt::format("'{}'", name),
                    fmt::format("one of {}", fmt::join(names, ", ")));
    }
    const bool complex = parameter->is_complex();
    check(part.defined() && part.sizes() == parameter->sizes() &&
              (part.is_floating_point() || (complex && part.is_complex())),
          "direction_order", fmt::format("the direction of '{}'", name), part, "{} {}",
          complex ? "complex" : "floating", text_of(parameter->sizes()));
    parts[place - order.begin()].add_(as_reals(part.detach().to(at::kCPU, complex ? at::kComplexDouble : at::kDouble)));
  }
  return at::cat(parts);
}

/// K of a model whose weights are one vector. The search goes over CPU vectors, the model stays where it is.
class ModelLandscape final : public Landscape {
 public:
  ModelLandscape(Replica& replica, const Likelihood& likelihood, const Data& data)
      : replica_(replica), likelihood_(likelihood), data_(data) {
    const at::NoGradGuard no_grad;
    frozen_ = output().detach().clone();
  }

  double value(const at::Tensor& weights) override {
    const at::NoGradGuard no_grad;
    go_to(weights);
    return excess().item<double>();
  }

  at::Tensor gradient(const at::Tensor& weights) override {
    go_to(weights);
    const at::AutoGradMode grad(true);
    gradient_ = replica_.gradient(excess(), 1, Replica::Graph::Differentiable);
    return gradient_.detach().to(at::kCPU);
  }

  at::Tensor curvature(const at::Tensor& v) override {
    const at::AutoGradMode grad(true);
    const at::Tensor along = gradient_.mul(v.to(gradient_.device()));
    return replica_.gradient(along, 1, Replica::Graph::Keep).detach().to(at::kCPU);
  }

 private:
  /// The graph of the last gradient holds the weights themselves, which now move.
  void go_to(const at::Tensor& weights) {
    gradient_.reset();
    const at::NoGradGuard no_grad;
    replica_.weights().copy_(weights);
  }

  /// Of copies, since a forward may write into its inputs.
  at::Tensor output() const {
    at::Tensor result = replica_.output(copy_of(data_).inputs);
    check_output(result, data_.size(), "direction_order");
    return result;
  }

  at::Tensor excess() const { return likelihood_.divergence(frozen_, output()).mean(); }

  Replica& replica_;
  const Likelihood& likelihood_;
  const Data& data_;
  at::Tensor frozen_, gradient_;
};

}  // namespace

DirectionOrder direction_order(const Problem& problem, const WeightDirection& direction, const OrderOptions& options) {
  check(problem, "direction_order");
  torch::nn::Module& model = problem.model;
  const std::vector<std::string> names = trainable_parameters(model);
  check_not_empty("direction_order", "the set of parameters that require grad", names, "at least one");
  const at::Tensor flat = flattened(model, names, direction);
  Data data(problem.data.inputs, {});
  for (at::Tensor& input : data.inputs) input = input.to(at_precision(input.scalar_type(), at::kDouble));

  GuardOptions guard_options;
  guard_options.dtype = at::kDouble;
  guard_options.require_grad = false;
  const ModelGuard guard(model, guard_options);
  const SuspendRecording unseen;
  // The guard puts back what the replica does to the model's parameters.
  Replica replica(borrowed(model), problem.forward, names);
  ModelLandscape landscape(replica, *problem.likelihood, data);
  return direction_order(landscape, replica.weights().detach().to(at::kCPU).clone(), flat, options);
}

}  // namespace dds
