// What PerSampleGradients gives out: gradients, sums and norms.
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <dds/per_sample.hpp>

#include "src/base/check.hpp"
#include "src/per_sample/gradients.hpp"

namespace dds {

namespace {

/// Entries in the order of memory as a tensor like the parameter.
at::Tensor shaped(const at::Tensor& entries, const at::Tensor& parameter) {
  const at::Tensor whole = entries.contiguous();
  std::vector<std::int64_t> sizes = parameter.sizes().vec(), strides = parameter.strides().vec();
  sizes.insert(sizes.begin(), whole.size(0));
  strides.insert(strides.begin(), whole.size(1));
  return whole.as_strided(sizes, strides);
}

}  // namespace

at::Tensor PerSampleGradients::Impl::squared_norms(const std::vector<std::string>& of) const {
  at::Tensor sum;
  for (const std::string& name : of) {
    const at::Tensor norms = parameter(name).terms.squared_norms(options_.max_bytes());
    sum = sum.defined() ? sum + norms : norms;
  }
  return sum;
}

at::Tensor PerSampleGradients::Impl::sum(const Parameter& parameter) const {
  return shaped(parameter.terms.sum(options_.max_bytes()).unsqueeze(0), parameter.tensor).squeeze(0);
}

at::Tensor PerSampleGradients::Impl::weighted_sum(const Parameter& parameter, const at::Tensor& weights) const {
  const hooks::Terms weighted = parameter.terms.weighted(weights);
  return shaped(weighted.sum(options_.max_bytes()).unsqueeze(0), parameter.tensor).squeeze(0);
}

std::int64_t PerSampleGradients::samples() const { return impl_->samples(); }

const std::vector<PerSampleLayer>& PerSampleGradients::layers() const { return impl_->layers(); }

std::vector<std::string> PerSampleGradients::parameters() const {
  std::vector<std::string> names;
  for (const Impl::Parameter& parameter : impl_->parameters()) {
    if (!parameter.status.no_numbers()) names.push_back(parameter.name);
  }
  return names;
}

at::Tensor PerSampleGradients::gradient(const std::string& name) const {
  const at::NoGradGuard no_grad;
  const Impl::Parameter& parameter = impl_->parameter(name);
  return shaped(parameter.terms.entries(0, parameter.terms.numel(), impl_->options().max_bytes()), parameter.tensor);
}

at::Tensor PerSampleGradients::sum(const std::string& name) const {
  const at::NoGradGuard no_grad;
  return impl_->sum(impl_->parameter(name));
}

at::Tensor PerSampleGradients::squared_norms(const std::string& name) const {
  const at::NoGradGuard no_grad;
  return impl_->squared_norms(impl_->layers()[impl_->layer(name)].parameters);
}

at::Tensor PerSampleGradients::squared_norms() const {
  const at::NoGradGuard no_grad;
  const std::vector<std::string> all = parameters();
  check_not_empty("PerSampleGradients::squared_norms", "parameters()", all, "a parameter with per-sample gradients");
  return impl_->squared_norms(all);
}

}  // namespace dds
