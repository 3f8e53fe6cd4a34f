// What PerSampleGradients holds, and how it is put together.
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

class PerSampleGradients::Impl {
 public:
  /// Throws InvalidArgument for options that do not fit the model.
  Impl(const torch::nn::Module& model, std::int64_t samples, PerSampleOptions options);

  struct Parameter {
    std::string name;
    at::Tensor tensor;               ///< the registered one
    std::vector<at::Tensor> leaves;  ///< all that are registered with its memory: several where weights are tied
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
  /// The terms of a layer's parameters, a bias joined with its weight.
  std::vector<hooks::Terms> terms_of(std::size_t layer) const;
  /// |g_i|^2 over these parameters: n.
  at::Tensor squared_norms(const std::vector<std::string>& parameters) const;
  /// sum_i g_i in the shape of the parameter.
  at::Tensor sum(const Parameter& parameter) const;

  // ---- putting together ----

  /// How the samples lie in the output of a call by the user's word (or where there is but one), if there is any.
  /// Throws InvalidArgument if it does not fit.
  std::optional<hooks::SampleRows> told_rows(const CapturedLayer& site, const CapturedCall& call) const;
  /// ... or else by the operator's and the layer's shape, if these leave no choice.
  std::optional<hooks::SampleRows> known_rows(const CapturedLayer& site, const CapturedCall& call) const;
  /// Adds what a call contributes; without `rows` its parameters are marked.
  void add(const CapturedLayer& site, const CapturedCall& call, const std::optional<hooks::SampleRows>& rows,
           at::Tensor delta, std::vector<at::Tensor> states);
  /// Gradients with respect to weights that were computed from parameters, which only a graph leads on from.
  std::vector<hooks::Uses::Derived> take_derived() { return std::exchange(derived_, {}); }
  /// Rows n x shape of one parameter that were computed otherwise.
  void add_rows(std::size_t parameter, const at::Tensor& rows);
  /// In place of all that it had.
  void replace_rows(std::size_t parameter, const at::Tensor& rows);
  /// Marks the layer of a site, and so its parameters.
  void mark(const CapturedLayer& site, StatusSet status, const std::string& detail);
  /// Layers that ran before a coupled call are coupled too.
  void mark_coupled(const Captured& captured);
  /// When all is added: marks what has nothing.
  void mark_missing(const Captured& captured);
  void mark(std::size_t parameter, StatusSet status, const std::string& detail);
  /// The layers' status from that of their parameters.
  void settle();
  bool is_parameter(const at::Tensor& tensor) const { return index_.find(tensor).has_value(); }

 private:
  void add_parameter(const hooks::FoundParameter& found);
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
