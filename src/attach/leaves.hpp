// The parameters of a program that hands no model over: leaves that want a gradient, as operators take them.
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

/// The first parameter of a network that an operator takes brings in all others of the network, under the names of its
/// module tree. Where two networks have layers of the same name, the second network's get its class as a prefix:
/// "Critic.fc1". A leaf that is in no module tree is a layer by itself, "leaf3 [64x32]", by the order of first use.
/// Inputs that want a gradient are leaves too: where there are networks, a leaf by itself counts only once an update
/// has changed it.
class Leaves : public hooks::ParameterSource {
 public:
  /// Asks the trees in turn.
  explicit Leaves(std::vector<ModuleTree*> trees) : trees_(std::move(trees)) {}

  std::string name() const override { return "parameters in use"; }
  void for_each(const std::function<void(const hooks::FoundParameter&)>& visit) const override;
  bool grows() const override { return true; }
  bool adopt(const at::Tensor& leaf) override;

  /// Parameters are named when they are first used, which may be before their network is whole. True if they would get
  /// the same names now. For one call, before anything is logged; from then on a leaf by itself has to be changed by an
  /// update first.
  bool settle();

  bool empty() const { return parameters_.empty(); }
  /// Names of all layers, of networks that are gone too.
  const std::set<std::string>& layers() const { return layers_; }
  bool known(const at::Tensor& leaf) const;
  /// The network that adopt(leaf) would take in; empty if the leaf is in no module.
  std::optional<Network> network_of(const at::Tensor& leaf) const;
  /// Parameters and buffers so far.
  std::size_t size() const { return parameters_.size() + buffers_.size(); }
  /// The buffers of the networks that are still alive.
  void for_each_named_buffer(const std::function<void(const std::string& name, const at::Tensor& buffer)>& visit) const;
  /// All parameters that are alive.
  std::vector<at::Tensor> tensors() const;
  /// Leaves that may turn out to be parameters.
  std::vector<at::Tensor> candidates() const;
  /// An update has come. Candidates that it changed are parameters from their next use on. The others are forgotten,
  /// and returned by identity.
  std::vector<const at::TensorImpl*> decide(const std::function<bool(const at::Tensor&)>& changed);

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
