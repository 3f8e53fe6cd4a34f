#include "src/attach/leaves.hpp"

#include <c10/core/DispatchKeySet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "hooks/transforms.hpp"

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
  for (const Parameter& parameter : parameters_) {
    hooks::FoundParameter found = parameter.found;
    auto tensor = parameter.tensor.lock();
    if (!tensor) continue;
    found.tensor = at::Tensor(std::move(tensor));
    visit(found);
  }
}

void Leaves::for_each_named_buffer(const std::function<void(const std::string&, const at::Tensor&)>& visit) const {
  for (const auto& [name, buffer] : buffers_) {
    if (auto tensor = buffer.lock()) visit(name, at::Tensor(std::move(tensor)));
  }
}

bool Leaves::known(const at::Tensor& leaf) const {
  return std::any_of(parameters_.begin(), parameters_.end(),
                     [&](const Parameter& parameter) { return is(parameter.tensor, leaf); });
}

std::optional<Network> Leaves::network_of(const at::Tensor& leaf) const {
  for (ModuleTree* tree : trees_) {
    if (auto network = tree->network_of(leaf)) return network;
  }
  return std::nullopt;
}

bool Leaves::adopt(const at::Tensor& leaf) {
  if (!has_memory(leaf) || known(leaf)) return false;
  const auto among = [&](const std::vector<Weak>& list) {
    return std::any_of(list.begin(), list.end(), [&](const Weak& weak) { return is(weak, leaf); });
  };
  if (among(candidates_)) return false;
  if (const auto network = network_of(leaf)) {
    take(*network);
    return true;
  }
  if (!among(proven_) && (settled_ || !networks_.empty())) {
    candidates_.emplace_back(leaf.getIntrusivePtr());
    return false;
  }
  take_alone(leaf);
  return true;
}

void Leaves::take(const Network& network) {
  Source source{network.type, network.language, ""};
  const auto collides = [&] {
    return std::any_of(network.parameters.begin(), network.parameters.end(),
                       [&](const auto& parameter) { return layers_.contains(source.prefix + parameter.layer); });
  };
  for (int number = 1; collides(); ++number) {
    source.prefix = short_class(network.type) + (number > 1 ? fmt::format("#{}.", number) : ".");
  }
  for (const hooks::FoundParameter& parameter : network.parameters) {
    hooks::FoundParameter found = parameter;
    found.layer = source.prefix + found.layer;
    found.name = source.prefix + found.name;
    found.tensor = at::Tensor();
    parameters_.push_back({found, Weak(parameter.tensor.getIntrusivePtr())});
  }
  for (const auto& [name, buffer] : network.buffers) {
    buffers_.emplace_back(source.prefix + name, Weak(buffer.getIntrusivePtr()));
  }
  for (const Parameter& parameter : parameters_) layers_.insert(parameter.found.layer);
  networks_.push_back(std::move(source));
}

void Leaves::take_alone(const at::Tensor& leaf) {
  const std::string name = fmt::format("leaf{} [{}]", ++alone_, fmt::join(leaf.sizes(), "x"));
  parameters_.push_back({{name, "Raw", name, {}, false}, Weak(leaf.getIntrusivePtr())});
  layers_.insert(name);
}

bool Leaves::settle() {
  settled_ = true;
  const std::vector<Parameter> before = std::move(parameters_);
  parameters_.clear();
  buffers_.clear();
  networks_.clear();
  layers_.clear();
  alone_ = 0;
  settled_ = false;
  for (const Parameter& parameter : before) {
    if (auto tensor = parameter.tensor.lock()) adopt(at::Tensor(std::move(tensor)));
  }
  settled_ = true;
  return std::equal(before.begin(), before.end(), parameters_.begin(), parameters_.end(),
                    [](const Parameter& a, const Parameter& b) { return a.found.name == b.found.name; });
}

std::vector<at::Tensor> Leaves::tensors() const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(parameters_.size());
  for (const Parameter& parameter : parameters_) {
    if (auto tensor = parameter.tensor.lock()) tensors.emplace_back(std::move(tensor));
  }
  return tensors;
}

std::vector<at::Tensor> Leaves::candidates() const {
  std::vector<at::Tensor> tensors;
  for (const Weak& weak : candidates_) {
    if (auto tensor = weak.lock()) tensors.emplace_back(std::move(tensor));
  }
  return tensors;
}

std::vector<const at::TensorImpl*> Leaves::decide(const std::function<bool(const at::Tensor&)>& changed) {
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
