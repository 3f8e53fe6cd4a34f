// Which layer a tensor belongs to: the parameters of a model by the memory that they lie in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace torch::nn {
class Module;
}

namespace dds::hooks {

/// A layer as the log names it: a LibTorch module with parameters of its own, or a single raw parameter of any other
/// module.
struct Layer {
  std::string name;  ///< the module's name, or the parameter's full name
  std::string kind;  ///< "Linear", "Conv2d", ...; "Raw" for a raw parameter
  bool selected = true;
};

/// A parameter as a walk over the modules finds it.
struct FoundParameter {
  std::string layer;  ///< that it belongs to, as Layer::name
  std::string kind;   ///< of the layer
  std::string name;   ///< as in named_parameters()
  at::Tensor tensor;
  bool sequence_first = false;  ///< within torch::nn's attention or transformers: inputs (sequence, batch, feature)
};

/// Calls visit for every parameter, in the order of named_modules(), which itself needs a model that is held by a
/// shared_ptr.
void for_each_parameter(const torch::nn::Module& model, const std::function<void(const FoundParameter&)>& visit);

/// A registered parameter, and the layers that hold it: several where weights are tied.
struct Parameter {
  std::vector<std::size_t> layers;  ///< indices into LayerIndex::layers()
  std::int64_t begin = 0;           ///< first element within its storage
  std::int64_t end = 0;             ///< one past the last
  at::Tensor tensor;                ///< itself: its storage is another once it has moved
};

/// "Linear" for torch::nn::LinearImpl; empty for a class of the user's own, and for MultiheadAttention, whose own
/// parameters are raw: its projections of query, key and value are products with parts of one matrix.
std::string layer_kind(const torch::nn::Module& module);

/// The layers of a model, and the way from a tensor to them.
class LayerIndex {
 public:
  explicit LayerIndex(torch::nn::Module& model);

  const std::vector<Layer>& layers() const { return layers_; }
  std::vector<Layer>& layers() { return layers_; }

  /// Looks up where the parameters lie now: they move when a model is loaded, converted or has a member replaced.
  void refresh();
  /// True if one of them has moved since.
  bool moved() const;

  /// The parameter that `tensor` is, or is a view of; nullptr if none. Flattened parameters share one storage, so the
  /// offset decides.
  const Parameter* find(const at::Tensor& tensor) const;

 private:
  torch::nn::Module* model_;
  std::vector<Layer> layers_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::unordered_map<const void*, std::vector<Parameter>> by_storage_;
};

/// The memory behind a tensor, as a key; nullptr if it has none (sparse, MKL-DNN's own layout).
const void* storage_of(const at::Tensor& tensor);

/// Number of in-place writes to a tensor and its views; 0 where they are not counted.
std::uint32_t version_of(const at::Tensor& tensor);

/// True if `text` matches the glob `pattern`: '*' any text, '?' one character.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace dds::hooks
