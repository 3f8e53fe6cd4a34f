// Parameters without a model: leaves that want a gradient, from the operators that use them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/layers.hpp"
#include "src/attach/module_tree.hpp"

namespace dds::attach {

/// The parameters of the networks in use. The first of a network's to come up in an operator brings in all of them,
/// under the names that its module tree gives them; where two networks have layers of the same name, those of the one
/// that came second are named after its class besides: "Critic.fc1". A leaf that is in no module tree is a layer by
/// itself, "leaf3 [64x32]" by the order of first use; where there are networks, only once an update has changed it:
/// inputs that want a gradient are leaves too.
class Leaves : public hooks::ParameterSource {
 public:
  /// Asks the trees in turn.
  explicit Leaves(std::vector<ModuleTree*> trees) : trees_(std::move(trees)) {}

  std::string name() const override { return "parameters in use"; }
  void for_each(const std::function<void(const hooks::FoundParameter&)>& visit) const override;
  bool grows() const override { return true; }
  bool adopt(const at::Tensor& leaf) override;

  /// Parameters are named when they are first used, which may be before their network is whole. True if they would
  /// be named the same now. To be asked once, before anything is logged; from then on a leaf by itself is held to the
  /// rule above.
  bool settle();

  bool empty() const { return parameters_.empty(); }
  bool known(const at::Tensor& leaf) const;
  /// What adopt() would take in with the leaf; empty if it is in no module.
  std::optional<Network> network_of(const at::Tensor& leaf) const;
  /// Of parameters and buffers: rises with what comes up.
  std::size_t size() const { return parameters_.size() + buffers_.size(); }
  /// The buffers of the networks, as far as they are still the tensors that they were.
  void for_each_buffer(const std::function<void(const std::string& name, const at::Tensor& buffer)>& visit) const;
  /// All that are alive.
  std::vector<at::Tensor> tensors() const;
  /// Leaves that may turn out to be parameters.
  std::vector<at::Tensor> candidates() const;
  /// Those of the candidates that an update has changed are parameters where they come up again; the others are
  /// forgotten.
  void decide(const std::function<bool(const at::Tensor&)>& changed);

  struct Source {
    std::string network, language, prefix;
  };
  const std::vector<Source>& networks() const { return networks_; }
  std::size_t alone() const { return alone_; }

 private:
  using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
  struct Parameter {
    hooks::FoundParameter found;  ///< without its tensor, which is not kept alive
    Weak tensor;
  };

  void take(const Network& network);
  void take_alone(const at::Tensor& leaf);

  std::vector<ModuleTree*> trees_;
  std::vector<Parameter> parameters_;
  std::vector<std::pair<std::string, Weak>> buffers_;
  std::vector<Source> networks_;
  std::set<std::string> layers_;
  std::size_t alone_ = 0;
  bool settled_ = false;
  std::vector<Weak> candidates_;
  std::vector<Weak> proven_;
};

}  // namespace dds::attach
