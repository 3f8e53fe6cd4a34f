#include "src/model/replica.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/Layout.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <algorithm>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"

namespace dds {
namespace {

std::string place_of(const at::Tensor& tensor) {
  return fmt::format("{} on {}", c10::toString(tensor.scalar_type()), tensor.device().str());
}

/// A vector of weights has one type and one device.
void check_alike(const at::Tensor& parameter, const at::Tensor& first, const std::string& name) {
  const bool same_type = c10::toRealValueType(parameter.scalar_type()) == c10::toRealValueType(first.scalar_type());
  if (same_type && parameter.device() == first.device()) return;
  throw_invalid("model", fmt::format("parameter '{}'", name), place_of(parameter),
                place_of(first) + ", as the first parameter");
}

std::vector<std::int64_t> with_parts(at::IntArrayRef sizes) {
  auto result = sizes.vec();
  result.push_back(2);
  return result;
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
    if (is_differentiable(item.value().scalar_type()) && item.value().requires_grad()) names.push_back(item.key());
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
  // A complex view begins at an even place.
  std::stable_partition(result.begin(), result.end(), [](const at::Tensor& each) { return each.is_complex(); });
  return result;
}

at::Tensor as_reals(const at::Tensor& tensor) {
  const auto dense = tensor.layout() == c10::kStrided ? tensor : tensor.to_dense();
  const auto plain = dense.resolve_conj().resolve_neg();
  return (plain.is_complex() ? at::view_as_real(plain) : plain).reshape({-1});
}

Replica::Replica(std::shared_ptr<torch::nn::Module> module, Forward forward, const std::vector<std::string>& names)
    : module_(std::move(module)), forward_(std::move(forward)) {
  const c10::NoGradGuard no_grad;
  parameters_ = distinct_parameters(*module_, names);
  check_not_empty("model", "the set of floating-point parameters that require grad", parameters_, "at least one");
  const auto all = module_->named_parameters();
  for (const auto& name : names) check_alike(all[name], parameters_[0], name);

  std::vector<at::Tensor> parts;
  for (const auto& parameter : parameters_) parts.push_back(as_reals(parameter.detach()));
  weights_ = at::cat(parts);
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    auto& parameter = parameters_[i];
    sizes_.push_back(parts[i].numel());
    const auto part = weights_.narrow(0, offset, sizes_[i]);
    parameter.set_data(parameter.is_complex() ? at::view_as_complex(part.view(with_parts(parameter.sizes())))
                                              : part.view(parameter.sizes()));
    parameter.set_requires_grad(true);
    offset += sizes_[i];
  }
}

std::vector<at::Tensor> Replica::gradient_parts(const at::Tensor& values, double scale, Graph graph) const {
  // Values that depend on no weight have no graph.
  if (!values.requires_grad()) return std::vector<at::Tensor>(parameters_.size());
  const bool differentiable = graph == Graph::Differentiable;
  auto parts = torch::autograd::grad({values}, parameters_, {at::full_like(values, scale)}, graph != Graph::Free,
                                     differentiable, /*allow_unused=*/true);
  for (auto& part : parts) {
    if (part.defined() && (part.layout() != c10::kStrided || part.is_complex() || part.is_neg())) part = as_reals(part);
  }
  return parts;
}

at::Tensor Replica::gradient(const at::Tensor& values, double scale, Graph graph) const {
  auto parts = gradient_parts(values, scale, graph);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i] = parts[i].defined() ? parts[i].reshape({-1}) : at::zeros({sizes_[i]}, weights_.options());
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
