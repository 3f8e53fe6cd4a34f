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

/// Where a recorder has its parameters from.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  virtual std::string name() const = 0;  ///< of what they are the parameters, for the log
  virtual void for_each(const std::function<void(const FoundParameter&)>& visit) const = 0;
  /// True if parameters come up as they are used: none need be there at first, and any pattern may match one later.
  virtual bool grows() const { return false; }
  /// Asked where an operator in grad mode takes a leaf that wants a gradient and is none of them: true if it is one
  /// from now on. Those that were there before keep their layers.
  virtual bool adopt(const at::Tensor& leaf) { return false; }
};

/// The parameters that a model has registered. The model must outlive what is done with them.
std::shared_ptr<ParameterSource> parameters_of(torch::nn::Module& model);

/// A registered parameter, and the layers that hold it: several where weights are tied.
struct Parameter {
  std::vector<std::size_t> layers;  ///< indices into LayerIndex::layers()
  std::int64_t begin = 0;           ///< first element within its storage
  std::int64_t end = 0;             ///< one past the last
  at::Tensor tensor;                ///< itself: its storage is another once it has moved
};

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

/// The layers of some parameters, and the way from a tensor to them.
class LayerIndex {
 public:
  explicit LayerIndex(std::shared_ptr<ParameterSource> source);

  const std::vector<Layer>& layers() const { return layers_; }
  std::vector<Layer>& layers() { return layers_; }

  /// Looks up where the parameters lie now: they move when a model is loaded, converted or has a member replaced.
  void refresh();
  /// True if one of them has moved since.
  bool moved() const;
  bool grows() const { return source_->grows(); }
  /// Lets the source take a leaf in as a parameter, which may add layers: true if it did.
  bool adopt(const at::Tensor& leaf);

  /// The parameter that `tensor` is, or is a view of; nullptr if none. Flattened parameters share one storage, so the
  /// offset decides.
  const Parameter* find(const at::Tensor& tensor) const;

 private:
  void add_layers();

  std::shared_ptr<ParameterSource> source_;
  std::vector<Layer> layers_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::unordered_map<const void*, std::vector<Parameter>> by_storage_;
};

/// The memory behind a tensor, as a key; nullptr if it has none (sparse, MKL-DNN's own layout).
const void* storage_of(const at::Tensor& tensor);

/// Number of in-place writes to a tensor and its views; 0 where they are not counted.
std::uint32_t version_of(const at::Tensor& tensor);

}  // namespace dds::hooks
