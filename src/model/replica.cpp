#include "src/model/replica.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <algorithm>

#include "src/base/check.hpp"

namespace dds {
namespace {

std::string place_of(const at::Tensor& tensor) {
  return fmt::format("{} on {}", c10::toString(tensor.scalar_type()), tensor.device().str());
}

/// A vector of weights has one type and one device.
void check_alike(const at::Tensor& parameter, const at::Tensor& first, const std::string& name) {
  if (parameter.scalar_type() == first.scalar_type() && parameter.device() == first.device()) return;
  throw_invalid("model", fmt::format("parameter '{}'", name), place_of(parameter),
                place_of(first) + ", as the first parameter");
}

/// Copies `from` into the tensors of the same name of `to`.
void copy_by_name(const torch::OrderedDict<std::string, at::Tensor>& from,
                  const torch::OrderedDict<std::string, at::Tensor>& to, const std::string& what) {
  const auto name_of = [&](const std::string& key) { return fmt::format("{} '{}'", what, key); };
  for (const auto& item : to) {
    if (!from.contains(item.key())) throw_invalid("factory", name_of(item.key()), "there", "none, as in the model");
  }
  for (const auto& item : from) {
    const auto* target = to.find(item.key());
    if (target == nullptr) throw_invalid("factory", name_of(item.key()), "missing", "one, as in the model");
    check(target->sizes() == item.value().sizes(), "factory", name_of(item.key()), *target, "the model's {}",
          text_of(item.value()));
    // set_data and not copy_, so that type and device become the model's.
    at::Tensor(*target).set_data(item.value().detach().clone());
  }
}

}  // namespace

std::vector<std::string> trainable_parameters(const torch::nn::Module& model) {
  std::vector<std::string> names;
  for (const auto& item : model.named_parameters()) {
    if (at::isFloatingType(item.value().scalar_type()) && item.value().requires_grad()) names.push_back(item.key());
  }
  return names;
}

std::vector<at::Tensor> distinct_parameters(const torch::nn::Module& model, const std::vector<std::string>& names) {
  const auto all = model.named_parameters();
  std::vector<at::Tensor> result;
  for (const auto& name : names) {
    const auto* parameter = all.find(name);
    if (!parameter) throw_invalid("model", fmt::format("parameter '{}'", name), "missing", "one, as in the original");
    const bool seen =
        std::any_of(result.begin(), result.end(), [&](const at::Tensor& other) { return other.is_same(*parameter); });
    if (!seen) result.push_back(*parameter);
  }
  return result;
}

Replica::Replica(std::shared_ptr<torch::nn::Module> module, Forward forward, const std::vector<std::string>& names)
    : module_(std::move(module)), forward_(std::move(forward)) {
  const c10::NoGradGuard no_grad;
  parameters_ = distinct_parameters(*module_, names);
  check_not_empty("model", "the set of floating-point parameters that require grad", parameters_, "at least one");
  const auto all = module_->named_parameters();
  for (const auto& name : names) check_alike(all[name], parameters_[0], name);

  std::vector<at::Tensor> flat;
  for (const auto& parameter : parameters_) flat.push_back(parameter.detach().reshape({-1}));
  weights_ = at::cat(flat);
  for (const auto& part : flat) sizes_.push_back(part.numel());
  std::int64_t offset = 0;
  for (auto& parameter : parameters_) {
    const auto size = parameter.numel();
    parameter.set_data(weights_.narrow(0, offset, size).view(parameter.sizes()));
    parameter.set_requires_grad(true);
    offset += size;
  }
}

std::vector<at::Tensor> Replica::gradient_parts(const at::Tensor& values, double scale, Graph graph) const {
  // Values that depend on no weight have no graph.
  if (!values.requires_grad()) return std::vector<at::Tensor>(parameters_.size());
  const bool differentiable = graph == Graph::Differentiable;
  return torch::autograd::grad({values}, parameters_, {at::full_like(values, scale)}, graph != Graph::Free,
                               differentiable, /*allow_unused=*/true);
}

at::Tensor Replica::gradient(const at::Tensor& values, double scale, Graph graph) const {
  auto parts = gradient_parts(values, scale, graph);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i] = (parts[i].defined() ? parts[i] : at::zeros_like(parameters_[i])).reshape({-1});
  }
  return at::cat(parts);
}

std::shared_ptr<torch::nn::Module> clone_model(torch::nn::Module& model) {
  std::shared_ptr<torch::nn::Module> clone;
  try {
    clone = model.clone();
  } catch (const c10::Error&) {
    return nullptr;  // not Cloneable, or a reset() that does not register what the model has
  }
  clone->eval();
  return clone;
}

std::shared_ptr<torch::nn::Module> build_model(const std::function<std::shared_ptr<torch::nn::Module>()>& factory,
                                               const torch::nn::Module& model) {
  auto built = factory();
  check_given("factory", "its result", built, "a model");
  if (built.get() == &model) throw_invalid("factory", "its result", "the model itself", "a new one");
  const c10::NoGradGuard no_grad;
  copy_by_name(model.named_parameters(), built->named_parameters(), "parameter");
  copy_by_name(model.named_buffers(), built->named_buffers(), "buffer");
  built->eval();
  return built;
}

}  // namespace dds
