// The layers of a recording's parameters: which there are, which are selected, and whose a tensor is.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <dds/patterns.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hooks/layers.hpp"
#include "hooks/parameter_index.hpp"

namespace dds::hooks {

struct Layer {
  std::string name;  ///< as FoundParameter::layer
  std::string kind;
  bool selected = true;
};

/// Which layers are recorded: those that the patterns and the predicate, if there is one, select.
struct LayerSelection {
  Patterns patterns;
  std::function<bool(const std::string& layer)> select;
};

/// True for a pattern on the names of taps: "tap:NAME".
bool is_tap(std::string_view pattern);

class LayerIndex {
 public:
  /// Throws InvalidArgument if the source has no parameters, or if a pattern or the predicate selects none of their
  /// layers; not where the source grows.
  LayerIndex(std::shared_ptr<ParameterSource> source, LayerSelection selection);

  const std::vector<Layer>& layers() const { return layers_; }
  /// Names of the selected ones.
  const std::vector<std::string>& selected() const { return selected_; }

  /// Looks up where the parameters lie now: they move when a model is loaded, converted or has a member replaced.
  void refresh();
  /// True if one of them has moved since.
  bool moved() const { return parameters_.moved(); }
  bool grows() const { return source_->grows(); }
  /// Lets the source take a leaf in as a parameter, which may add layers. Returns true if it did.
  bool adopt(const at::Tensor& leaf);

  bool is_parameter(const at::Tensor& tensor) const { return parameters_.find(tensor).has_value(); }
  /// The layers that hold the parameter that `tensor` is, or is a view of: several where weights are tied. Null if it
  /// is none.
  const std::vector<std::size_t>* layers_of(const at::Tensor& tensor) const;

 private:
  void add_layers();
  void check_selection() const;

  std::shared_ptr<ParameterSource> source_;
  LayerSelection selection_;
  std::vector<Layer> layers_;
  std::vector<std::string> selected_;
  std::unordered_map<std::string, std::size_t> by_name_;
  ParameterIndex parameters_;
  std::vector<std::vector<std::size_t>> holders_;  ///< by number of the parameter: places in layers_
};

}  // namespace dds::hooks
