#include "src/per_sample/gradients.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <limits>

#include "hooks/layers.hpp"
#include "src/base/glob.hpp"
#include "src/spectral/solver.hpp"

namespace dds {

using hooks::SampleRows;
using hooks::Terms;

// ---- the table of parameters and layers ----

PerSampleGradients::Impl::Impl(const torch::nn::Module& model, std::int64_t samples, PerSampleOptions options)
    : samples_(samples), options_(std::move(options)) {
  if (samples < 1)
    throw InvalidArgument(fmt::format("per_sample_gradients: samples is {}, expected at least 1", samples));
  if (options_.max_bytes() < 1) {
    throw InvalidArgument(
        fmt::format("per_sample_gradients: max_bytes is {}, expected at least 1", options_.max_bytes()));
  }
  if (!std::isfinite(options_.scale()) || options_.scale() == 0) {
    throw InvalidArgument(
        fmt::format("per_sample_gradients: scale is {}, expected a finite number other than 0", options_.scale()));
  }
  const auto selected = [&](const std::string& layer) {
    const auto& patterns = options_.layers();
    return patterns.empty() || std::any_of(patterns.begin(), patterns.end(),
                                           [&](const std::string& pattern) { return glob_match(pattern, layer); });
  };
  hooks::for_each_parameter(model, [&](const hooks::FoundParameter& found) {
    if (!selected(found.layer)) return;
    const auto [known, is_new] = layer_by_name_.try_emplace(found.layer, layers_.size());
    if (is_new) {
      layers_.push_back({found.layer, found.kind, {}, {}, {}});
      places_.push_back({{}, found.sequence_first});
    }
    std::vector<std::size_t>& here = by_storage_[hooks::storage_of(found.tensor)];
    const auto tied = std::find_if(here.begin(), here.end(), [&](std::size_t p) {
      return parameters_[p].tensor.storage_offset() == found.tensor.storage_offset();
    });
    const std::size_t parameter = tied == here.end() ? parameters_.size() : *tied;
    if (tied == here.end()) {
      here.push_back(parameter);
      parameters_.push_back({found.name, found.tensor, {}, Terms(samples_, found.tensor.numel()), {}, {}});
    }
    std::vector<at::Tensor>& leaves = parameters_[parameter].leaves;
    const auto same = [&](const at::Tensor& leaf) { return leaf.is_same(found.tensor); };
    if (std::none_of(leaves.begin(), leaves.end(), same)) leaves.push_back(found.tensor);
    parameter_by_name_[found.name] = parameter;
    places_[known->second].parameters.push_back(parameter);
    layers_[known->second].parameters.push_back(parameters_[parameter].name);
  });
  for (const auto& [pattern, rule] : options_.samples()) {
    if (std::none_of(layers_.begin(), layers_.end(), [&, &pattern = pattern](const PerSampleLayer& layer) {
          return glob_match(pattern, layer.name);
        })) {
      throw InvalidArgument(
          fmt::format("per_sample_gradients: the pattern '{}' of samples() matches no layer", pattern));
    }
  }
}

std::optional<hooks::ParameterView> PerSampleGradients::Impl::find(const at::Tensor& tensor) const {
  const auto here = by_storage_.find(hooks::storage_of(tensor));
  if (here == by_storage_.end()) return std::nullopt;
  for (const std::size_t p : here->second) {
    const at::Tensor& parameter = parameters_[p].tensor;
    const std::int64_t offset = tensor.storage_offset() - parameter.storage_offset();
    if (offset >= 0 && offset < parameter.numel()) return hooks::ParameterView{p, offset, parameter.numel()};
  }
  return std::nullopt;
}

/// A further site of a layer is called name#2.
std::optional<std::size_t> PerSampleGradients::Impl::layer_of(const CapturedLayer& site) const {
  auto known = layer_by_name_.find(site.layer);
  if (known == layer_by_name_.end()) known = layer_by_name_.find(site.layer.substr(0, site.layer.rfind('#')));
  return known == layer_by_name_.end() ? std::nullopt : std::optional(known->second);
}

void PerSampleGradients::Impl::mark(std::size_t parameter, StatusSet status, const std::string& detail) {
  parameters_[parameter].status |= status;
  if (parameters_[parameter].detail.empty()) parameters_[parameter].detail = detail;
}

void PerSampleGradients::Impl::mark(const CapturedLayer& site, StatusSet status, const std::string& detail) {
  const auto layer = layer_of(site);
  if (!layer) return;
  for (const std::size_t parameter : places_[*layer].parameters) mark(parameter, status, detail);
}

// ---- one call ----

std::optional<SampleRows> PerSampleGradients::Impl::told_rows(const CapturedLayer& site,
                                                              const CapturedCall& call) const {
  using Order = SampleRows::Order;
  const std::int64_t n = samples_;
  const auto layer = layer_of(site);
  if (!layer) return std::nullopt;
  const std::string& name = layers_[*layer].name;
  for (const auto& [pattern, rule] : options_.samples()) {
    if (!glob_match(pattern, name)) continue;
    const std::int64_t dims = call.output.dim(), dim = rule.dim < 0 ? rule.dim + dims : rule.dim;
    if (dim < 0 || dim >= dims || call.output.size(dim) % n != 0) {
      throw InvalidArgument(
          fmt::format("per_sample_gradients: samples() says that dimension {} of the output of '{}' counts {} samples, "
                      "and that has "
                      "shape [{}]",
                      rule.dim, name, n, fmt::join(call.output.sizes(), ", ")));
    }
    return SampleRows{
        rule.order == SampleDim::Order::SampleMajor ? Order::SampleMajor : Order::PositionMajor, n, dim, {}};
  }
  if (n == 1) return SampleRows{Order::Whole, 1, 0, at::zeros({1}, call.output.options().dtype(at::kLong))};
  return std::nullopt;
}

std::optional<SampleRows> PerSampleGradients::Impl::known_rows(const CapturedLayer& site,
                                                               const CapturedCall& call) const {
  const auto layer = layer_of(site);
  if (!layer) return std::nullopt;
  if (auto told = told_rows(site, call)) return told;
  const hooks::CapturedOperator& op = *call.captured_operator();
  auto dim = hooks::known_sample_dim(call, op);
  if (!dim && places_[*layer].sequence_first && call.output.dim() == 3) dim = 1;
  if (!dim) {
    const auto possible = hooks::possible_sample_dims(call, op);
    if (possible.size() == 1) dim = possible.front();
  }
  if (!dim || call.output.size(*dim) != samples_) return std::nullopt;
  return SampleRows{SampleRows::Order::SampleMajor, samples_, *dim, {}};
}

void PerSampleGradients::Impl::add(const CapturedLayer& site, const CapturedCall& captured,
                                   const std::optional<SampleRows>& rows, at::Tensor delta,
                                   std::vector<at::Tensor> states) {
  const at::NoGradGuard no_grad;
  if (!layer_of(site)) return;
  const bool any =
      delta.defined() || std::any_of(states.begin(), states.end(), [](const at::Tensor& s) { return s.defined(); });
  if (!any) return;
  const hooks::CapturedOperator& op = *captured.captured_operator();
  hooks::Uses uses([this](const at::Tensor& tensor) { return find(tensor); });
  if (!captured.input_intact()) {
    uses.mark(Status::Overwritten, "its input was written to in place after it ran");
  } else if (!rows) {
    uses.mark(Status::SamplesUnknown,
              fmt::format("which rows of its output [{}] belong to which of {} samples is not known",
                          fmt::join(captured.output.sizes(), ", "), samples_));
  } else {
    // Everything in one type, of at least fp32.
    at::ScalarType type = at::kFloat;
    const auto consider = [&](const at::Tensor& tensor) {
      if (tensor.defined() && tensor.is_floating_point()) type = c10::promoteTypes(type, tensor.scalar_type());
    };
    consider(delta);
    for (const at::Tensor& input : captured.inputs) consider(input);
    const auto convert = [&](at::Tensor& tensor) {
      if (tensor.defined() && tensor.is_floating_point()) tensor = tensor.to(type);
    };
    CapturedCall call = captured;
    for (at::Tensor& input : call.inputs) convert(input);
    for (at::Tensor* gradient : {&delta}) {
      convert(*gradient);
      if (gradient->defined() && options_.scale() != 1) *gradient = gradient->mul(options_.scale());
    }
    for (at::Tensor& state : states) {
      convert(state);
      if (state.defined() && options_.scale() != 1) state = state.mul(options_.scale());
    }
    hooks::add_uses({call, op, *rows, delta, std::move(states)}, uses);
  }
  for (const auto& [parameter, term] : uses.placed()) parameters_[parameter].terms.add(term);
  for (const auto& derived : uses.derived()) derived_.push_back(derived);
  if (uses.status().empty()) return;
  // The parameters that the operator took, or the layer's where it took what was computed from them.
  bool found = false;
  const auto touch = [&](const at::Tensor& tensor) {
    if (const auto view = find(tensor)) {
      mark(view->parameter, uses.status(), uses.detail());
      found = true;
    }
  };
  hooks::for_each_tensor(op.args(), touch);
  touch(op.weight);
  if (op.bias.defined()) touch(op.bias);
  if (!found) mark(site, uses.status(), uses.detail());
}

void PerSampleGradients::Impl::add_rows(std::size_t parameter, const at::Tensor& rows) {
  const at::Tensor& tensor = parameters_[parameter].tensor;
  std::vector<hooks::Axis> axes;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) axes.push_back({tensor.size(dim), tensor.stride(dim)});
  parameters_[parameter].terms.add(hooks::place(hooks::Dense{rows.reshape({samples_, -1})}, axes, 0, tensor.numel()));
}

void PerSampleGradients::Impl::replace_rows(std::size_t parameter, const at::Tensor& rows) {
  parameters_[parameter].terms = Terms(samples_, parameters_[parameter].tensor.numel());
  parameters_[parameter].status = {};
  parameters_[parameter].detail = "by one backward pass for each sample";
  add_rows(parameter, rows);
}

void PerSampleGradients::Impl::mark_coupled(const Captured& captured) {
  std::int64_t last = -1;
  for (const CapturedLayer& site : captured.layers) {
    for (const CapturedCall& call : site.calls) {
      if (call.coupled) last = std::max(last, call.order);
    }
  }
  for (const CapturedLayer& site : captured.layers) {
    for (const CapturedCall& call : site.calls) {
      if (call.order <= last) mark(site, Status::Coupled, "the forward mixes samples here or after it");
    }
  }
}

void PerSampleGradients::Impl::mark_missing(const Captured& captured) {
  for (const CapturedLayer& site : captured.layers) {
    const auto layer = layer_of(site);
    if (!layer) continue;
    for (const std::size_t p : places_[*layer].parameters) {
      if (!parameters_[p].terms.terms().empty() || parameters_[p].status.no_numbers()) continue;
      if (site.status.no_numbers()) mark(p, site.status, site.detail);
    }
  }
  for (Parameter& parameter : parameters_) {
    if (!parameter.terms.terms().empty() || parameter.status.no_numbers()) continue;
    parameter.status |= Status::NoGradient;
    if (parameter.detail.empty()) parameter.detail = "no use of it was captured that a backward pass came through";
  }
}

void PerSampleGradients::Impl::settle() {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    for (const std::size_t p : places_[i].parameters) {
      layers_[i].status |= parameters_[p].status;
      if (!parameters_[p].detail.empty() && layers_[i].detail.empty()) {
        layers_[i].detail = fmt::format("{}: {}", parameters_[p].name, parameters_[p].detail);
      }
    }
  }
}

// ---- looking up ----

const PerSampleGradients::Impl::Parameter& PerSampleGradients::Impl::parameter(const std::string& name) const {
  const auto known = parameter_by_name_.find(name);
  if (known == parameter_by_name_.end()) {
    std::vector<std::string> names;
    for (const Parameter& parameter : parameters_) names.push_back(parameter.name);
    throw InvalidArgument(fmt::format("PerSampleGradients: there is no parameter '{}', expected one of {}", name,
                                      fmt::join(names, ", ")));
  }
  const Parameter& parameter = parameters_[known->second];
  if (parameter.status.no_numbers()) {
    throw InvalidArgument(fmt::format("PerSampleGradients: '{}' has no per-sample gradients ({}): {}", name,
                                      to_string(parameter.status), parameter.detail));
  }
  return parameter;
}

std::size_t PerSampleGradients::Impl::layer(const std::string& name) const {
  const auto known = layer_by_name_.find(name);
  if (known == layer_by_name_.end()) {
    std::vector<std::string> names;
    for (const PerSampleLayer& layer : layers_) names.push_back(layer.name);
    throw InvalidArgument(
        fmt::format("PerSampleGradients: there is no layer '{}', expected one of {}", name, fmt::join(names, ", ")));
  }
  const PerSampleLayer& layer = layers_[known->second];
  if (layer.status.no_numbers()) {
    throw InvalidArgument(fmt::format("PerSampleGradients: layer '{}' has no per-sample gradients ({}): {}", name,
                                      to_string(layer.status), layer.detail));
  }
  return known->second;
}

std::vector<Terms> PerSampleGradients::Impl::terms_of(std::size_t layer) const {
  std::vector<Terms> all;
  for (const std::size_t p : places_[layer].parameters) {
    const Terms& terms = parameters_[p].terms;
    bool joined = false;
    for (Terms& before : all) {
      if (auto both = hooks::joined_with_bias(before, terms)) {
        before = std::move(*both);
        joined = true;
        break;
      }
    }
    if (!joined) all.push_back(terms);
  }
  return all;
}

// ---- the public face ----

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

at::Tensor PerSampleGradients::Impl::sum(const Parameter& parameter) const {
  return shaped(parameter.terms.sum(options_.max_bytes()).unsqueeze(0), parameter.tensor).squeeze(0);
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
  at::Tensor sum;
  for (const std::string& parameter : impl_->layers()[impl_->layer(name)].parameters) {
    const at::Tensor norms = impl_->parameter(parameter).terms.squared_norms(impl_->options().max_bytes());
    sum = sum.defined() ? sum + norms : norms;
  }
  return sum;
}

at::Tensor PerSampleGradients::squared_norms() const {
  const at::NoGradGuard no_grad;
  at::Tensor sum;
  for (const std::string& parameter : parameters()) {
    const at::Tensor norms = impl_->parameter(parameter).terms.squared_norms(impl_->options().max_bytes());
    sum = sum.defined() ? sum + norms : norms;
  }
  if (!sum.defined()) throw InvalidArgument("PerSampleGradients: no parameter has per-sample gradients");
  return sum;
}

namespace {

/// K_l, of which only the upper triangle is filled in.
at::Tensor upper_gram(const std::vector<Terms>& terms, std::int64_t max_bytes) {
  const std::int64_t n = terms.front().samples();
  at::Tensor sum = at::zeros({n, n}, terms.front().entries(0, 0, max_bytes).options());
  for (const Terms& parameter : terms) parameter.add_gram(sum, max_bytes);
  return sum.div_(static_cast<double>(n));
}

/// The eigenvalues of positive semi-definite matrices (b, k, k) given by their upper triangles, ascending, on the CPU.
/// A matrix on which the device's solver fails is solved by a Jacobi iteration, and marked.
at::Tensor eigenvalues(const at::Tensor& matrices, std::vector<bool>& retried) {
  retried.assign(static_cast<std::size_t>(matrices.size(0)), false);
  at::Tensor values;
  try {
    values = at::linalg_eigvalsh(matrices, "U").cpu().to(at::kDouble);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    values = at::zeros({matrices.size(0), matrices.size(1)}, at::kDouble).fill_(std::nan(""));
  }
  for (std::int64_t i = 0; i < matrices.size(0); ++i) {
    if (at::isfinite(values[i]).all().item<bool>()) continue;
    retried[static_cast<std::size_t>(i)] = true;
    const at::Tensor upper = matrices[i].cpu().to(at::kDouble).triu();
    const at::Tensor whole = upper + upper.triu(1).t();
    const at::Tensor scale = whole.abs().max().clamp_min(std::numeric_limits<double>::min());
    values[i].copy_(jacobi_svd(whole / scale, false).sigma.flip(0).mul(scale));
  }
  return values;
}

}  // namespace

at::Tensor PerSampleGradients::gram(const std::string& name) const {
  const at::NoGradGuard no_grad;
  const at::Tensor upper = upper_gram(impl_->terms_of(impl_->layer(name)), impl_->options().max_bytes());
  return upper.triu().add_(upper.triu(1).t());
}

std::vector<GramSpectrum> PerSampleGradients::spectra(const std::vector<std::string>& names, GramRange range) const {
  const at::NoGradGuard no_grad;
  const std::int64_t n = samples(), max_bytes = impl_->options().max_bytes();
  std::vector<std::string> wanted = names;
  if (wanted.empty()) {
    for (const PerSampleLayer& layer : layers()) {
      if (!layer.status.no_numbers()) wanted.push_back(layer.name);
    }
  }
  std::vector<GramSpectrum> result;
  std::vector<std::vector<Terms>> terms;
  for (const std::string& name : wanted) {
    terms.push_back(impl_->terms_of(impl_->layer(name)));
    GramSpectrum& spectrum = result.emplace_back();
    spectrum.layer = name;
    spectrum.samples = n;
    for (const std::string& parameter : layers()[impl_->layer(name)].parameters) {
      spectrum.parameters += impl_->parameter(parameter).terms.numel();
    }
  }

  if (range == GramRange::Rows) {
    for (std::size_t i = 0; i < result.size(); ++i) {
      GramSpectrum& spectrum = result[i];
      TriangularAccumulator rows(n);
      at::ScalarType type = at::kDouble;
      for (const std::string& parameter : layers()[impl_->layer(spectrum.layer)].parameters) {
        impl_->parameter(parameter).terms.for_each_slab(max_bytes, [&](const at::Tensor& slab) {
          type = slab.scalar_type();
          rows.update(slab.t());
        });
      }
      const Spectrum singular = read_spectrum(rows);
      if (!singular.finite) {
        spectrum.status |= Status::NonFinite;
        continue;
      }
      if (singular.retried) spectrum.status |= Status::SolverRetried;
      for (const double sigma : singular.sigma) {
        const double unscaled = std::ldexp(sigma, singular.exponent);
        spectrum.eigenvalues.push_back(unscaled * unscaled / static_cast<double>(n));
      }
      const double floor =
          noise_floor(type, n, spectrum.parameters,
                      std::ldexp(singular.sigma.empty() ? 0 : singular.sigma.front(), singular.exponent));
      spectrum.floor = floor * floor / static_cast<double>(n);
    }
    return result;
  }

  // The smaller side of every layer, those of equal size and type in one solve.
  std::map<std::pair<std::int64_t, at::ScalarType>, std::vector<std::size_t>> groups;
  std::vector<at::Tensor> matrices;
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (result[i].parameters < n) {
      std::vector<at::Tensor> parts;
      for (const std::string& parameter : layers()[impl_->layer(result[i].layer)].parameters) {
        const Terms& of = impl_->parameter(parameter).terms;
        parts.push_back(of.entries(0, of.numel(), max_bytes));
      }
      const at::Tensor rows = at::cat(parts, 1);
      matrices.push_back(rows.t().mm(rows).div_(static_cast<double>(n)));
    } else {
      matrices.push_back(upper_gram(terms[i], max_bytes));
    }
    groups[{matrices.back().size(0), matrices.back().scalar_type()}].push_back(i);
  }
  for (const auto& [shape, members] : groups) {
    std::vector<at::Tensor> batch;
    for (const std::size_t i : members) batch.push_back(matrices[i]);
    const at::Tensor stacked = at::stack(batch);
    const at::Tensor finite = at::isfinite(stacked).flatten(1).all(1);
    const at::Tensor told = finite.cpu();
    std::vector<bool> retried;
    // A matrix that is not finite would fail the whole batch.
    const at::Tensor values = eigenvalues(stacked.masked_fill(finite.logical_not().reshape({-1, 1, 1}), 0), retried);
    for (std::size_t k = 0; k < members.size(); ++k) {
      GramSpectrum& spectrum = result[members[k]];
      if (!told[static_cast<std::int64_t>(k)].item<bool>()) {
        spectrum.status |= Status::NonFinite;
        continue;
      }
      if (retried[k]) spectrum.status |= Status::SolverRetried;
      const at::Tensor descending = values[static_cast<std::int64_t>(k)].flip(0).contiguous();
      const double* data = descending.data_ptr<double>();
      spectrum.eigenvalues.assign(data, data + descending.numel());
      const double eps =
          shape.second == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
      spectrum.floor = 4 * std::sqrt(static_cast<double>(n)) * eps * spectrum.eigenvalues.front();
    }
  }
  return result;
}

}  // namespace dds
