#include "src/attach/leaves.hpp"

#include <c10/core/DispatchKeySet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "hooks/transforms.hpp"
#include "src/attach/interpreter.hpp"

namespace dds::attach {
namespace {

/// False for tensors that stand for others while something is traced or transformed.
bool has_memory(const at::Tensor& tensor) {
  const c10::DispatchKeySet traced({c10::DispatchKey::Python, c10::DispatchKey::Functionalize});
  return tensor.has_storage() && !tensor.is_meta() && !hooks::is_stand_in(tensor) &&
         !tensor.unsafeGetTensorImpl()->key_set().has_any(traced);
}

/// "Net" for "(anonymous namespace)::NetImpl".
std::string short_class(const std::string& type) {
  std::string name = type.substr(0, type.find('<'));
  if (const std::size_t colon = name.rfind("::"); colon != std::string::npos) name = name.substr(colon + 2);
  if (name.size() > 4 && name.ends_with("Impl")) name.resize(name.size() - 4);
  return name.empty() ? "network" : name;
}

template <class Weak>
bool is(const Weak& weak, const at::Tensor& tensor) {
  return weak._unsafe_get_target() == tensor.unsafeGetTensorImpl() && !weak.expired();
}

}  // namespace

void Leaves::for_each(const std::function<void(const hooks::FoundParameter&)>& visit) const {
  const auto lock = locked(mutex_);
  for (const Parameter& parameter : parameters_) {
    hooks::FoundParameter found = parameter.found;
    auto tensor = parameter.tensor.lock();
    if (!tensor) continue;
    found.tensor = at::Tensor(std::move(tensor));
    visit(found);
  }
}

void Leaves::for_each_named_buffer(const std::function<void(const std::string&, const at::Tensor&)>& visit) const {
  const auto lock = locked(mutex_);
  for (const auto& [name, buffer] : buffers_) {
    if (auto tensor = buffer.lock()) visit(name, at::Tensor(std::move(tensor)));
  }
}

bool Leaves::empty() const {
  const auto lock = locked(mutex_);
  return parameters_.empty();
}

bool Leaves::known(const at::Tensor& leaf) const {
  const auto lock = locked(mutex_);
  const auto place = places_.find(leaf.unsafeGetTensorImpl());
  return place != places_.end() && is(parameters_[place->second].tensor, leaf);
}

std::optional<Network> Leaves::network_of(const at::Tensor& leaf) const {
  for (ModuleTree* tree : trees_) {
    if (auto network = tree->network_of(leaf)) return network;
  }
  return std::nullopt;
}

bool Leaves::take_network_of(const at::Tensor& leaf) {
  const auto met = strangers_.find(leaf.unsafeGetTensorImpl());
  const bool again = met != strangers_.end() && is(met->second, leaf);
  if (std::none_of(trees_.begin(), trees_.end(), [&](ModuleTree* tree) { return tree->may_have(leaf, again); }))
    return false;
  if (const auto network = network_of(leaf)) {
    take(*network);
    return true;
  }
  std::erase_if(strangers_, [](const auto& entry) { return entry.second.expired(); });
  strangers_.insert_or_assign(leaf.unsafeGetTensorImpl(), Weak(leaf.getIntrusivePtr()));
  return false;
}

bool Leaves::adopt(const at::Tensor& leaf) {
  const auto lock = locked(mutex_);
  if (!has_memory(leaf) || known(leaf)) return false;
  const auto among = [&](const std::vector<Weak>& list) {
    return std::any_of(list.begin(), list.end(), [&](const Weak& weak) { return is(weak, leaf); });
  };
  if (among(candidates_)) return false;
  if (take_network_of(leaf)) return true;
  if (!among(proven_) && (settled_ || !networks_.empty())) {
    candidates_.emplace_back(leaf.getIntrusivePtr());
    return false;
  }
  take_alone(leaf);
  return true;
}

std::vector<at::Tensor> Leaves::adopt_reached(const std::vector<at::Tensor>& leaves) {
  const auto lock = locked(mutex_);
  for (const at::Tensor& leaf : leaves) {
    if (has_memory(leaf) && !known(leaf)) take_network_of(leaf);
  }
  std::vector<at::Tensor> parameters;
  for (const at::Tensor& leaf : leaves) {
    adopt(leaf);
    if (known(leaf)) parameters.push_back(leaf);
  }
  return parameters;
}

void Leaves::add(Parameter parameter) {
  places_.insert_or_assign(parameter.tensor._unsafe_get_target(), parameters_.size());
  parameters_.push_back(std::move(parameter));
}

std::set<std::size_t> Leaves::networks_of(const std::set<const at::TensorImpl*>& parameters) const {
  const auto lock = locked(mutex_);
  std::set<std::size_t> networks;
  for (const at::TensorImpl* parameter : parameters) {
    const auto place = places_.find(parameter);
    if (place != places_.end() && parameters_[place->second].network)
      networks.insert(*parameters_[place->second].network);
  }
  return networks;
}

Leaves::Source Leaves::named(const Network& network) const {
  Source source{network.type, network.language, ""};
  const auto collides = [&] {
    return std::any_of(network.parameters.begin(), network.parameters.end(),
                       [&](const auto& parameter) { return layers_.contains(source.prefix + parameter.layer); });
  };
  for (int number = 1; collides(); ++number) {
    source.prefix = short_class(network.type) + (number > 1 ? fmt::format("#{}.", number) : ".");
  }
  return source;
}

/// One that has grown has all that it had. Another may share a part of it.
std::optional<std::size_t> Leaves::grown_from(const Network& network) const {
  std::map<std::size_t, std::size_t> shared, had;
  for (const hooks::FoundParameter& parameter : network.parameters) {
    if (!known(parameter.tensor)) continue;
    const auto& before = parameters_[places_.at(parameter.tensor.unsafeGetTensorImpl())].network;
    if (before) ++shared[*before];
  }
  if (shared.empty()) return std::nullopt;
  for (const Parameter& parameter : parameters_) {
    if (parameter.network && !parameter.tensor.expired()) ++had[*parameter.network];
  }
  const auto place = shared.begin();
  return place->second == had[place->first] ? std::optional(place->first) : std::nullopt;
}

void Leaves::take(const Network& network) {
  std::optional<std::size_t> place = grown_from(network);
  if (!place) {
    place = networks_.size();
    networks_.push_back(named(network));
  }
  const std::string prefix = networks_[*place].prefix;
  for (const hooks::FoundParameter& parameter : network.parameters) {
    if (known(parameter.tensor)) continue;
    hooks::FoundParameter found = parameter;
    found.layer = prefix + found.layer;
    found.name = prefix + found.name;
    found.tensor = at::Tensor();
    if (found.kind == "Raw" && parameter.tensor.dim() < 2) vectors_.insert(found.layer);
    add({found, Weak(parameter.tensor.getIntrusivePtr()), place});
  }
  for (const auto& [name, buffer] : network.buffers) {
    buffers_.emplace_back(prefix + name, Weak(buffer.getIntrusivePtr()));
  }
  for (const Parameter& parameter : parameters_) layers_.insert(parameter.found.layer);
}

void Leaves::take_alone(const at::Tensor& leaf) {
  const std::string name = fmt::format("leaf{} [{}]", ++alone_, fmt::join(leaf.sizes(), "x"));
  add({{name, "Raw", name, {}, false}, Weak(leaf.getIntrusivePtr()), std::nullopt});
  layers_.insert(name);
  if (leaf.dim() < 2) vectors_.insert(name);
}

void Leaves::name_anew(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> alive;
  std::map<const at::TensorImpl*, Source> counts;
  for (const Parameter& parameter : parameters) {
    auto tensor = parameter.tensor.lock();
    if (!tensor) continue;
    if (parameter.network) counts[tensor.get()] = networks_[*parameter.network];
    alive.emplace_back(std::move(tensor));
  }
  parameters_.clear();
  places_.clear();
  strangers_.clear();
  buffers_.clear();
  networks_.clear();
  layers_.clear();
  alone_ = 0;
  settled_ = false;
  adopt_reached(alive);
  settled_ = true;
  for (const auto& [tensor, before] : counts) {
    const auto place = places_.find(tensor);
    if (place == places_.end() || !parameters_[place->second].network) continue;
    Source& network = networks_[*parameters_[place->second].network];
    network.updates = before.updates;
    network.last_update = before.last_update;
    network.gap = before.gap;
  }
}

bool Leaves::settle() {
  const auto lock = locked(mutex_);
  const std::vector<Parameter> before = parameters_;
  name_anew(before);
  // Inputs may be gone from among them; what is left has to have its name still.
  std::map<const at::TensorImpl*, std::string> names;
  for (const Parameter& parameter : before) names[parameter.tensor._unsafe_get_target()] = parameter.found.name;
  return std::all_of(parameters_.begin(), parameters_.end(), [&](const Parameter& parameter) {
    const auto name = names.find(parameter.tensor._unsafe_get_target());
    return name != names.end() && name->second == parameter.found.name;
  });
}

void Leaves::keep(const std::set<const at::TensorImpl*>& updated) {
  const auto lock = locked(mutex_);
  const std::set<std::size_t> networks = networks_of(updated);
  std::vector<Parameter> kept;
  for (const Parameter& parameter : parameters_) {
    if (parameter.network ? networks.contains(*parameter.network)
                          : updated.contains(parameter.tensor._unsafe_get_target()))
      kept.push_back(parameter);
  }
  if (kept.size() < parameters_.size()) name_anew(kept);
}

std::vector<at::Tensor> Leaves::candidates() const {
  const auto lock = locked(mutex_);
  std::vector<at::Tensor> tensors;
  for (const Weak& weak : candidates_) {
    if (auto tensor = weak.lock()) tensors.emplace_back(std::move(tensor));
  }
  return tensors;
}

std::vector<const at::TensorImpl*> Leaves::decide(const std::function<bool(const at::Tensor&)>& changed) {
  const auto lock = locked(mutex_);
  std::vector<const at::TensorImpl*> forgotten;
  for (const Weak& weak : candidates_) {
    auto alive = weak.lock();
    const at::Tensor tensor = alive ? at::Tensor(std::move(alive)) : at::Tensor();
    if (tensor.defined() && changed(tensor)) {
      proven_.emplace_back(tensor.getIntrusivePtr());
    } else {
      forgotten.push_back(weak._unsafe_get_target());
    }
  }
  candidates_.clear();
  return forgotten;
}

}  // namespace dds::attach
