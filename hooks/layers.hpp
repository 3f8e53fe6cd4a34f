// The layers of a model, and where a recorder has its parameters from.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace torch::nn {
class Module;
}

namespace dds::hooks {

/// A parameter as a walk over the modules finds it. Its layer is the LibTorch module that it is a parameter of. A
/// parameter of any other module is raw, and a layer by itself.
struct FoundParameter {
  std::string layer;  ///< the module's name, or a raw parameter's own
  std::string kind;   ///< of the layer: "Linear", "Conv2d", ...; "Raw"
  std::string name;   ///< as in named_parameters()
  at::Tensor tensor;
  bool sequence_first = false;  ///< within torch::nn's attention or transformers: inputs (sequence, batch, feature)
};

/// Calls visit for every parameter, in the order of named_modules(), which itself needs a model that is held by a
/// shared_ptr.
void for_each_parameter(const torch::nn::Module& model, const std::function<void(const FoundParameter&)>& visit);

/// Where a recorder has its parameters from.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  virtual std::string name() const = 0;  ///< of what they are the parameters, for the log
  virtual void for_each(const std::function<void(const FoundParameter&)>& visit) const = 0;
  /// Tensors that the model has besides its parameters.
  virtual void for_each_buffer(const std::function<void(const at::Tensor&)>& visit) const {}
  /// True if parameters are found as they are used. None need be there at first, and a pattern may match one later.
  virtual bool grows() const { return false; }
  /// An operator in grad mode takes a leaf that wants a gradient and is none of the parameters. Returns true if the
  /// source takes it in as one. The parameters that there were keep their layers.
  virtual bool adopt(const at::Tensor& leaf) { return false; }
};

/// The parameters that a model has registered. The model must outlive the source.
std::shared_ptr<ParameterSource> parameters_of(torch::nn::Module& model);

/// A parameter named `key` of a module of class `type` at `path`.
FoundParameter found_parameter(std::string_view type, const std::string& path, const std::string& key,
                               at::Tensor tensor, bool sequence_first);
/// The path of what is named `name` in the module at `path`.
std::string path_below(const std::string& path, const std::string& name);
/// True for the classes of torch::nn that take (sequence, batch, feature), to which what is within them is held too.
bool is_sequence_first(std::string_view type);

/// "Linear" for torch::nn::LinearImpl; empty for a class of the user's own, and for MultiheadAttention, whose own
/// parameters are raw: its projections of query, key and value are products with parts of one matrix.
std::string layer_kind(std::string_view type);

}  // namespace dds::hooks
