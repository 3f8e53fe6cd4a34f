// What PerSampleGradients holds, and how it is filled.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/per_sample.hpp>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/captured_operator.hpp"
#include "hooks/layers.hpp"
#include "hooks/parameter_index.hpp"
#include "src/per_sample/samples.hpp"
#include "src/per_sample/terms.hpp"
#include "src/per_sample/uses.hpp"

namespace dds {

/// The public function that errors name.
inline constexpr const char* kPerSampleGradients = "per_sample_gradients";
/// The reason of Status::Coupled.
inline constexpr const char* kMixesSamples = "the forward mixes samples here or after it";

class PerSampleGradients::Impl {
 public:
  /// Throws InvalidArgument for options that do not fit the model.
  Impl(const torch::nn::Module& model, std::int64_t samples, PerSampleOptions options);

  struct Parameter {
    std::string name;
    at::Tensor tensor;               ///< as the model registered it
    std::vector<at::Tensor> leaves;  ///< all registered tensors with this memory; several where weights are tied
    hooks::Terms terms;
    StatusSet status;
    std::string detail;
  };
  struct Layer {
    std::vector<std::size_t> parameters;
    bool sequence_first = false;
  };

  std::int64_t samples() const { return samples_; }
  const PerSampleOptions& options() const { return options_; }
  const std::vector<PerSampleLayer>& layers() const { return layers_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  /// The parameter of this name; throws if it has no gradients.
  const Parameter& parameter(const std::string& name) const;
  /// The layer of this name as an index; throws if it has no gradients.
  std::size_t layer(const std::string& name) const;
  /// The terms of a layer's parameters. A bias is joined with its weight where this can be done.
  std::vector<hooks::Terms> terms_of(std::size_t layer) const;
  /// |g_i|^2 over these parameters: n.
  at::Tensor squared_norms(const std::vector<std::string>& parameters) const;
  /// sum_i g_i in the shape of the parameter.
  at::Tensor sum(const Parameter& parameter) const;
  at::Tensor weighted_sum(const Parameter& parameter, const at::Tensor& weights) const;

  // ---- filling ----

  /// How the samples lie in the output of a call, as the user says. With one sample, all is of this one. Empty if the
  /// user says nothing. Throws InvalidArgument if it does not fit the output.
  std::optional<hooks::SampleRows> told_rows(const CapturedLayer& site, const CapturedCall& call) const;
  /// The same where nothing is measured: if the user says nothing, the operator, the layer and its shape decide. Empty
  /// if they leave a choice, or if the rows may be others than the samples'; then `doubt` says why.
  std::optional<hooks::SampleRows> known_rows(const CapturedLayer& site, const CapturedCall& call,
                                              std::string& doubt) const;
  /// Adds the terms of one call. Without `rows`, its parameters are marked instead, with `doubt`. `delta` and `states`
  /// are the gradients at its output and at its states.
  void add(const CapturedLayer& site, const CapturedCall& call, const std::optional<hooks::SampleRows>& rows,
           at::Tensor delta, std::vector<at::Tensor> states, const std::string& doubt = "");
  /// Hands over the gradients by weights that were computed from parameters. The graph leads from there to the
  /// parameters.
  std::vector<hooks::Uses::Derived> take_derived() { return std::exchange(derived_, {}); }
  /// Adds gradients of one parameter that are written out: n x its shape.
  void add_rows(std::size_t parameter, const at::Tensor& rows);
  /// Replaces all gradients of one parameter.
  void replace_rows(std::size_t parameter, const at::Tensor& rows);
  /// Marks all parameters of the layer of a site.
  void mark(const CapturedLayer& site, StatusSet status, const std::string& detail);
  /// Marks coupled layers, and those that ran before a coupled call.
  void mark_coupled(const Captured& captured);
  /// Marks parameters without terms. To be called when all calls are added.
  /// Of a recording that follows axes.
  void mark_uses_beside(const Captured& captured);
  void mark_missing(const Captured& captured);
  void mark(std::size_t parameter, StatusSet status, const std::string& detail);
  /// Gives each layer the status of its parameters. To be called at the end.
  void settle();
  /// True if all parameters of a layer have gradients.
  bool has_gradients(std::size_t layer) const;

 private:
  void add_parameter(const hooks::FoundParameter& found);
  std::string samples_not_finite(const Parameter& parameter) const;
  void convert(std::vector<at::Tensor>& inputs, at::Tensor& delta, std::vector<at::Tensor>& states) const;
  void mark(const CapturedLayer& site, const hooks::CapturedOperator& op, const hooks::Uses& uses);
  std::optional<std::size_t> layer_of(const CapturedLayer& site) const;

  std::int64_t samples_;
  PerSampleOptions options_;
  hooks::ParameterIndex index_;
  std::vector<Parameter> parameters_;  // by number in index_
  std::vector<PerSampleLayer> layers_;
  std::vector<Layer> places_;  // by layer
  std::unordered_map<std::string, std::size_t> layer_by_name_;
  std::map<std::string, std::size_t> parameter_by_name_;  // every name, also of tied ones
  std::vector<hooks::Uses::Derived> derived_;
};

}  // namespace dds
