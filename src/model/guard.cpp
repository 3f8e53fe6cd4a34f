#include "src/model/guard.hpp"

#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>
#include <tuple>
#include <unordered_set>

#include "src/base/dtype.hpp"

namespace dds {
namespace {

template <class T>
std::weak_ptr<T> weak(const std::shared_ptr<T>& pointer) {
  return pointer;
}
template <class T>
c10::weak_intrusive_ptr<T> weak(const c10::intrusive_ptr<T>& pointer) {
  return c10::weak_intrusive_ptr<T>(pointer);
}

/// The same for tied tensors. Empty if the tensor has no memory of its own layout.
std::optional<std::tuple<const void*, std::int64_t, std::int64_t>> place_in_memory(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return std::nullopt;
  return std::tuple{tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl(), tensor.storage_offset(),
                    tensor.numel()};
}

/// True if the tensor has room for a gradient: to ask for one would make it.
bool has_grad(const at::Tensor& tensor) { return tensor.unsafeGetTensorImpl()->autograd_meta() != nullptr; }

/// Runs one step of restore(). The next one is run even if it throws.
template <class Step>
void attempt(const Step& step) noexcept {
  try {
    step();
  } catch (...) {
    // A destructor cannot report it. Only a user's override of train() can fail here.
  }
}

}  // namespace

ModelGuard::ModelGuard(torch::nn::Module& model, GuardOptions options) {
  save_modes(model);
  save_tensors(model, options);
  save_generators();
  try {
    apply(model, options);
  } catch (...) {
    restore();
    throw;
  }
}

ModelGuard::~ModelGuard() { restore(); }

void ModelGuard::save_modes(torch::nn::Module& model) {
  model.apply([this](torch::nn::Module& module) { modes_.push_back({&module, module.is_training()}); });
}

void ModelGuard::save_tensors(torch::nn::Module& model, const GuardOptions& options) {
  const c10::NoGradGuard no_grad;
  std::unordered_set<const c10::TensorImpl*> seen;  // tied weights are registered twice
  std::set<std::tuple<const void*, std::int64_t, std::int64_t>> copied;
  const auto save = [&](const at::Tensor& tensor, bool copy) {
    if (!tensor.defined() || !seen.insert(tensor.unsafeGetTensorImpl()).second) return std::optional<Saved>();
    const auto type = options.dtype ? at_precision(tensor.scalar_type(), *options.dtype) : tensor.scalar_type();
    const bool converts = tensor.scalar_type() != type;
    const auto data = tensor.variable_data();  // which counts its own writes
    at::Tensor replacement, values;
    if (converts) replacement = data.to(type);
    if (!converts && copy) replacement = data.clone();
    const auto place = place_in_memory(data);
    if (!replacement.defined() && place && copied.insert(*place).second) values = data.clone();
    return std::optional<Saved>({tensor,
                                 data,
                                 replacement,
                                 values,
                                 tensor.unsafeGetTensorImpl()->version_counter(),
                                 tensor.requires_grad(),
                                 torch::autograd::impl::try_get_grad_accumulator(tensor),
                                 {}});
  };
  for (const auto& parameter : model.parameters()) {
    auto saved = save(parameter, /*copy=*/false);
    if (!saved) continue;
    if (has_grad(saved->tensor)) saved->grad = saved->tensor.mutable_grad();
    parameters_.push_back(std::move(*saved));
  }
  // Buffers are always copied: a forward may write into them in place.
  for (const auto& buffer : model.buffers()) {
    if (auto saved = save(buffer, /*copy=*/true)) buffers_.push_back(std::move(*saved));
  }
}

void ModelGuard::save_generators() {
  std::vector<at::Device> devices = {at::Device(at::kCPU)};
  for (const auto& saved : parameters_) {
    const auto device = saved.tensor.device();
    if (device.is_cuda() && std::find(devices.begin(), devices.end(), device) == devices.end())
      devices.push_back(device);
  }
  for (const auto& device : devices) {
    auto generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    auto state = generator.get_state();
    generators_.push_back({std::move(generator), std::move(state)});
  }
}

void ModelGuard::apply(torch::nn::Module& model, const GuardOptions& options) {
  const c10::NoGradGuard no_grad;
  model.eval();
  for (auto& saved : parameters_) {
    if (has_grad(saved.tensor)) saved.tensor.mutable_grad().reset();
  }
  for (auto* tensors : {&parameters_, &buffers_}) {
    for (auto& saved : *tensors) {
      if (saved.replacement.defined()) saved.tensor.set_data(saved.replacement);
      saved.replacement.reset();
      if (!saved.tensor.is_inference())
        torch::autograd::impl::set_version_counter(saved.tensor, c10::VariableVersion(0));
    }
  }
  if (!options.require_grad) return;
  for (auto& saved : parameters_) {
    if (is_differentiable(saved.tensor.scalar_type())) saved.tensor.set_requires_grad(true);
  }
}

void ModelGuard::restore() noexcept {
  const c10::NoGradGuard no_grad;
  for (auto* tensors : {&parameters_, &buffers_}) {
    for (auto& saved : *tensors) {
      attempt([&] { saved.tensor.set_data(saved.data); });
      attempt([&] {
        if (saved.values.defined() && !at::equal(saved.data, saved.values)) saved.data.copy_(saved.values);
      });
      attempt([&] { torch::autograd::impl::set_version_counter(saved.tensor, saved.version); });
      attempt([&] {
        if (saved.tensor.requires_grad() != saved.requires_grad) saved.tensor.set_requires_grad(saved.requires_grad);
      });
      // set_data with another type has dropped the node through which a live graph of the caller's accumulates. A
      // second node would split the gradient's hooks, and its stream.
      attempt([&] {
        if (saved.requires_grad) torch::autograd::impl::set_grad_accumulator(saved.tensor, weak(saved.accumulator));
      });
    }
  }
  for (auto& saved : parameters_) {
    if (has_grad(saved.tensor)) saved.tensor.mutable_grad() = saved.grad;
  }
  // train() sets all children too, so parents first.
  for (const auto& mode : modes_) attempt([&] { mode.module->train(mode.training); });
  for (auto& saved : generators_) {
    attempt([&] {
      const std::lock_guard<std::mutex> lock(saved.generator.mutex());
      saved.generator.set_state(saved.state);
    });
  }
}

}  // namespace dds
