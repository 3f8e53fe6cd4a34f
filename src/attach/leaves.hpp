// The parameters of a program that hands no model over: leaves that want a gradient, as operators take them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
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
/// has changed it. Calls may come from several threads.
class Leaves : public hooks::ParameterSource {
 public:
  /// Asks the trees in turn.
  explicit Leaves(std::vector<ModuleTree*> trees) : trees_(std::move(trees)) {}

  std::string name() const override { return "parameters in use"; }
  void for_each(const std::function<void(const hooks::FoundParameter&)>& visit) const override;
  bool grows() const override { return true; }
  bool adopt(const at::Tensor& leaf) override;
  /// The same of leaves that a backward pass reaches: networks first, so that what they are given is no parameter.
  /// Returns those that are parameters now.
  std::vector<at::Tensor> adopt_reached(const std::vector<at::Tensor>& leaves);

  /// Parameters are named when they are first used, which may be before their network is whole. True if those
  /// that are parameters still have the same names now. For one call, before anything is logged; from then on a leaf by
  /// itself has to be changed by an update first.
  bool settle();
  /// Forgets the networks and leaves none of which is among these, before anything is logged: their names are free
  /// again.
  void keep(const std::set<const at::TensorImpl*>& updated);

  bool empty() const;
  /// Names of all layers, of networks that are gone too.
  const std::set<std::string>& layers() const { return layers_; }
  /// Those of them that are single parameters of one dimension, such as a bias: they have no rows.
  const std::set<std::string>& vectors() const { return vectors_; }
  bool known(const at::Tensor& leaf) const;
  /// The network that adopt(leaf) would take in; empty if the leaf is in no module.
  std::optional<Network> network_of(const at::Tensor& leaf) const;
  /// Parameters and buffers so far.
  std::size_t size() const { return parameters_.size() + buffers_.size(); }
  /// The buffers of the networks that are still alive.
  void for_each_named_buffer(const std::function<void(const std::string& name, const at::Tensor& buffer)>& visit) const;
  /// Leaves that may turn out to be parameters.
  std::vector<at::Tensor> candidates() const;
  /// An update has come. Candidates that it changed are parameters from their next use on. The others are forgotten,
  /// and returned by identity.
  std::vector<const at::TensorImpl*> decide(const std::function<bool(const at::Tensor&)>& changed);

  struct Source {
    std::string network, language, prefix;
    std::int64_t updates = 0;      ///< of any parameter of it
    std::int64_t last_update = 0;  ///< by the number of the step
    std::int64_t gap = 0;          ///< steps between its last two updates
    std::int64_t readings = 0;     ///< steps that were read and updated it
  };
  /// The networks of these parameters, by their place in networks(). Leaves by themselves have none.
  std::set<std::size_t> networks_of(const std::set<const at::TensorImpl*>& parameters) const;
  Source& network(std::size_t place) { return networks_[place]; }
  const std::vector<Source>& networks() const { return networks_; }
  std::size_t alone() const { return alone_; }

 private:
  using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
  struct Parameter {
    hooks::FoundParameter found;  ///< without its tensor, which is not kept alive
    Weak tensor;
    std::optional<std::size_t> network;
  };

  /// Takes in the network that `leaf` is in, if it is in any. One that is in none is asked for once.
  bool take_network_of(const at::Tensor& leaf);
  void add(Parameter parameter);
  /// Gives all of these names anew.
  void name_anew(const std::vector<Parameter>& parameters);
  /// What is said of a network, with a prefix under which none of its layers has the name of another.
  Source named(const Network& network) const;
  std::optional<std::size_t> grown_from(const Network& network) const;
  void take(const Network& network);
  void take_alone(const at::Tensor& leaf);

  mutable std::recursive_mutex mutex_;  ///< of all below
  std::vector<ModuleTree*> trees_;
  std::vector<Parameter> parameters_;
  std::unordered_map<const at::TensorImpl*, std::size_t> places_;  ///< in parameters_
  std::unordered_map<const at::TensorImpl*, Weak> strangers_;      ///< that are in no module
  std::vector<std::pair<std::string, Weak>> buffers_;
  std::vector<Source> networks_;
  std::set<std::string> layers_, vectors_;
  std::size_t alone_ = 0;
  bool settled_ = false;
  std::vector<Weak> candidates_;
  std::vector<Weak> proven_;
};

}  // namespace dds::attach
