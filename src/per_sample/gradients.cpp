#include "src/per_sample/gradients.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>

#include "hooks/layer_run.hpp"
#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/base/glob.hpp"
#include "src/per_sample/operator_uses.hpp"
#include "src/per_sample/placing.hpp"

namespace dds {

using hooks::SampleRows;
using hooks::Terms;

namespace {

template <class Named>
std::vector<std::string> names_of(const std::vector<Named>& all) {
  std::vector<std::string> names;
  for (const Named& one : all) names.push_back(one.name);
  return names;
}

[[noreturn]] void throw_unknown(const char* what, const std::string& name, const std::vector<std::string>& names) {
  throw_invalid("PerSampleGradients", what, fmt::format("'{}'", name),
                fmt::format("one of {}", fmt::join(names, ", ")));
}

[[noreturn]] void throw_no_gradients(const char* what, const std::string& name, StatusSet status,
                                     const std::string& detail) {
  throw_invalid("PerSampleGradients", what, fmt::format("'{}'", name),
                fmt::format("one with per-sample gradients; this has none ({}): {}", to_string(status), detail));
}

}  // namespace

// ---- the table of parameters and layers ----

PerSampleGradients::Impl::Impl(const torch::nn::Module& model, std::int64_t samples, PerSampleOptions options)
    : samples_(samples), options_(std::move(options)) {
  check_at_least(kPerSampleGradients, "samples", samples, 1);
  check_at_least(kPerSampleGradients, "max_bytes", options_.max_bytes(), 1);
  check(std::isfinite(options_.scale()) && options_.scale() != 0, kPerSampleGradients, "scale", options_.scale(),
        "a finite number other than 0");
  hooks::for_each_parameter(model, [this](const hooks::FoundParameter& found) { add_parameter(found); });
  const std::vector<std::string> names = names_of(layers_);
  for (const std::string& pattern : options_.layers().list()) {
    check(glob_match_any(pattern, names), kPerSampleGradients, "a pattern of layers()", pattern,
          "one that matches a layer");
  }
  for (const auto& rule : options_.samples()) {
    if (glob_match_any(rule.first, names)) continue;
    throw_invalid(kPerSampleGradients, "samples()", fmt::format("for the pattern '{}'", rule.first),
                  fmt::format("a pattern that matches one of {}", fmt::join(names, ", ")));
  }
}

void PerSampleGradients::Impl::add_parameter(const hooks::FoundParameter& found) {
  if (!options_.layers().select(found.layer)) return;
  const auto [known, is_new] = layer_by_name_.try_emplace(found.layer, layers_.size());
  if (is_new) {
    layers_.push_back({found.layer, found.kind, {}, false, {}, {}});
    places_.push_back({{}, found.sequence_first});
  }
  const std::size_t parameter = index_.add(found.tensor);
  if (parameter == parameters_.size()) {
    parameters_.push_back({found.name, found.tensor, {}, Terms(samples_, found.tensor.numel()), {}, {}});
  }
  std::vector<at::Tensor>& leaves = parameters_[parameter].leaves;
  const auto same = [&](const at::Tensor& leaf) { return leaf.is_same(found.tensor); };
  if (std::none_of(leaves.begin(), leaves.end(), same)) leaves.push_back(found.tensor);
  parameter_by_name_[found.name] = parameter;
  places_[known->second].parameters.push_back(parameter);
  layers_[known->second].parameters.push_back(parameters_[parameter].name);
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

void PerSampleGradients::Impl::add(const CapturedLayer& site, const CapturedCall& captured,
                                   const std::optional<SampleRows>& rows, at::Tensor delta,
                                   std::vector<at::Tensor> states, const std::string& doubt) {
  const at::NoGradGuard no_grad;
  if (!layer_of(site)) return;
  const auto defined = [](const at::Tensor& tensor) { return tensor.defined(); };
  if (!delta.defined() && std::none_of(states.begin(), states.end(), defined)) return;
  const hooks::CapturedOperator& op = *captured.captured_operator();
  hooks::Uses uses(index_);
  if (!captured.input_intact()) {
    uses.mark(Status::Overwritten, "its input was written to in place after it ran");
  } else if (!rows) {
    uses.mark(Status::SamplesUnknown,
              fmt::format("which rows of its output [{}] belong to which of {} samples is not known{}; "
                          "PerSampleOptions::samples tells where they lie",
                          fmt::join(captured.output.sizes(), ", "), samples_,
                          doubt.empty() ? ", or a row belongs to several" : ": " + doubt));
  } else {
    CapturedCall call = captured;
    convert(call.inputs, delta, states);
    hooks::add_uses({call, op, *rows, delta, std::move(states)}, uses);
  }
  for (const auto& [parameter, term] : uses.placed()) parameters_[parameter].terms.add(term);
  for (const auto& derived : uses.derived()) derived_.push_back(derived);
  if (!uses.status().empty()) mark(site, op, uses);
}

/// Brings everything to one type, of at least fp32, and the gradients to the scale of the per-sample losses. Complex
/// inputs are conjugated: of y = w x, the gradient by w is delta times the conjugate of x.
void PerSampleGradients::Impl::convert(std::vector<at::Tensor>& inputs, at::Tensor& delta,
                                       std::vector<at::Tensor>& states) const {
  const auto is_number = [](const at::Tensor& tensor) {
    return tensor.defined() && is_differentiable(tensor.scalar_type());
  };
  at::ScalarType type = at::kFloat;
  if (is_number(delta)) type = c10::promoteTypes(type, delta.scalar_type());
  for (const at::Tensor& input : inputs) {
    if (is_number(input)) type = c10::promoteTypes(type, input.scalar_type());
  }
  for (at::Tensor& input : inputs) {
    if (is_number(input)) input = input.to(type).conj().resolve_conj().resolve_neg();
  }
  const auto scale = [&](at::Tensor& gradient) {
    if (is_number(gradient)) gradient = gradient.to(type).resolve_conj().resolve_neg();
    if (gradient.defined() && options_.scale() != 1) gradient = gradient.mul(options_.scale());
  };
  scale(delta);
  for (at::Tensor& state : states) scale(state);
}

/// Marks the parameters that the operator took, or the layer's where it took what was computed from them.
void PerSampleGradients::Impl::mark(const CapturedLayer& site, const hooks::CapturedOperator& op,
                                    const hooks::Uses& uses) {
  bool found = false;
  const auto touch = [&](const at::Tensor& tensor) {
    if (const auto place = index_.find(tensor)) {
      mark(place->number, uses.status(), uses.detail());
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
      if (call.order <= last) mark(site, Status::Coupled, kMixesSamples);
    }
  }
}

void PerSampleGradients::Impl::mark_uses_beside(const Captured& captured) {
  for (const CapturedLayer& site : captured.layers) {
    for (const CapturedCall& call : site.calls) {
      const auto& op = call.captured_operator();
      if (!op || !op->beside) continue;
      for (const auto& [name, other] : *op->beside) {
        const auto layer = layer_by_name_.find(name);
        if (layer == layer_by_name_.end()) continue;
        for (const std::size_t p : places_[layer->second].parameters) {
          mark(p, Status::NotObservable, fmt::format("it has uses beside those that were captured, in {}", other));
        }
      }
      return;  // all calls have the same
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
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    PerSampleLayer& layer = layers_[i];
    layer.has_gradients = has_gradients(i);
    for (const std::size_t p : places_[i].parameters) {
      layer.status |= parameters_[p].status;
      std::string detail = parameters_[p].detail;
      if (!parameters_[p].status.no_numbers()) {
        if (std::string wrong = samples_not_finite(parameters_[p]); !wrong.empty()) {
          layer.status |= Status::NonFinite;
          detail = std::move(wrong);
        }
      }
      if (!detail.empty() && layer.detail.empty()) layer.detail = fmt::format("{}: {}", parameters_[p].name, detail);
    }
  }
}

bool PerSampleGradients::Impl::has_gradients(std::size_t layer) const {
  const std::vector<std::size_t>& all = places_[layer].parameters;
  return std::none_of(all.begin(), all.end(), [&](std::size_t p) { return parameters_[p].status.no_numbers(); });
}

/// In words; empty if there are none. A sum has a NaN or Inf if one of its terms has.
std::string PerSampleGradients::Impl::samples_not_finite(const Parameter& parameter) const {
  if (at::isfinite(parameter.terms.sum(options_.max_bytes())).all().item<bool>()) return "";
  at::Tensor wrong;
  parameter.terms.for_each_slab(options_.max_bytes(), [&](const at::Tensor& slab) {
    const at::Tensor here = at::isfinite(slab).logical_not().any(1);
    wrong = wrong.defined() ? wrong.logical_or(here) : here;
  });
  const at::Tensor which = wrong.nonzero().flatten().cpu();
  if (which.numel() == 0) return "the sum over the samples has a NaN or Inf, those of the samples have none";
  const std::int64_t first = which[0].item<std::int64_t>();
  return which.numel() == 1 ? fmt::format("the gradient of sample {} has a NaN or Inf", first)
                            : fmt::format("the gradients of {} samples have a NaN or Inf, the first is sample {}",
                                          which.numel(), first);
}

// ---- looking up ----

const PerSampleGradients::Impl::Parameter& PerSampleGradients::Impl::parameter(const std::string& name) const {
  const auto known = parameter_by_name_.find(name);
  if (known == parameter_by_name_.end()) throw_unknown("parameter", name, names_of(parameters_));
  const Parameter& parameter = parameters_[known->second];
  if (parameter.status.no_numbers()) throw_no_gradients("parameter", name, parameter.status, parameter.detail);
  return parameter;
}

std::size_t PerSampleGradients::Impl::layer(const std::string& name) const {
  const auto known = layer_by_name_.find(name);
  if (known == layer_by_name_.end()) throw_unknown("layer", name, names_of(layers_));
  const PerSampleLayer& layer = layers_[known->second];
  if (!layer.has_gradients) throw_no_gradients("layer", name, layer.status, layer.detail);
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

}  // namespace dds
