// Nobody tells when a module ends, and no shared_ptr holds a module on a stack. So modules are read as raw memory
// (peek.hpp), at the moment when the name of a leaf is wanted. The leaf is in use then, and so is its network; what is
// left of other networks has no pointer to its parameters.
#include <c10/core/TensorImpl.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "src/attach/module_tree.hpp"
#include "src/attach/peek.hpp"

namespace dds::attach {
struct Members;
}

/// torch::nn::Cloneable is a friend of Module: this one says where its members lie, without touching them.
template <>
class torch::nn::Cloneable<dds::attach::Members> {
 public:
  static const void* parameters(const Module* module) { return &module->parameters_.items(); }
  static const void* buffers(const Module* module) { return &module->buffers_.items(); }
  static const void* children(const Module* module) { return &module->children_.items(); }
};

namespace dds::attach {
namespace {

using Members = torch::nn::Cloneable<dds::attach::Members>;

/// Items of the ordered dictionaries in a module: of its parameters and buffers, and of its children.
struct RawTensor {
  RawString key;
  const void* tensor;
};
struct RawChild {
  RawString key;
  const void *module, *count;
};
static_assert(sizeof(RawTensor) == sizeof(torch::OrderedDict<std::string, at::Tensor>::Item));
static_assert(sizeof(RawChild) == sizeof(torch::OrderedDict<std::string, std::shared_ptr<torch::nn::Module>>::Item));

struct Entry {
  std::string name;
  const void* value;
};

template <class Item>
std::vector<Entry> entries(const void* items, const void* Item::*value) {
  constexpr std::size_t kLongest = 4096;
  std::vector<Entry> result;
  for (const Item& item : peek_vector<Item>(items)) {
    std::string name(std::min(item.key.size, kLongest + 1), '\0');
    // What is short lies within the string itself, whose address is that of the item in the program, not of the copy.
    if (name.size() > kLongest || !peek(item.key.data, name.data(), name.size())) return {};
    result.push_back({std::move(name), item.*value});
  }
  return result;
}

std::vector<Entry> parameters_of(const void* module) {
  return entries(Members::parameters(static_cast<const torch::nn::Module*>(module)), &RawTensor::tensor);
}

std::vector<Entry> buffers_of(const void* module) {
  return entries(Members::buffers(static_cast<const torch::nn::Module*>(module)), &RawTensor::tensor);
}

std::vector<Entry> children_of(const void* module) {
  return entries(Members::children(static_cast<const torch::nn::Module*>(module)), &RawChild::module);
}

/// The tensor at this address, if it is one: of the same class as `like`, and held by somebody.
at::Tensor read_tensor(const void* address, const at::Tensor& like) {
  if (address == like.unsafeGetTensorImpl()) return like;
  const auto table = peek<const void*>(address), expected = peek<const void*>(like.unsafeGetTensorImpl());
  if (!table || table != expected) return {};
  auto* impl = static_cast<at::TensorImpl*>(const_cast<void*>(address));
  if (c10::raw::intrusive_ptr::use_count(impl) == 0) return {};
  return at::Tensor(c10::intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>::unsafe_reclaim_from_nonowning(impl));
}

}  // namespace

/// All modules that are there, and who is whose parent.
struct Forest {
  std::vector<const void*> modules;
  std::unordered_map<const void*, const void*> parents;
  std::unordered_map<const void*, const void*> owners;  ///< of parameters

  /// Copies of a module have no constructor that could be met, but their parents point at them. What is met first has
  /// the say where two modules have the same child or parameter: one of them is gone, as a rule, moved or copied from.
  void grow(const std::vector<const void*>& starts) {
    std::vector<const void*> open(starts.rbegin(), starts.rend());
    while (!open.empty()) {
      const void* module = open.back();
      open.pop_back();
      if (!seen.insert(module).second) continue;
      modules.push_back(module);
      for (const Entry& parameter : parameters_of(module)) owners.emplace(parameter.value, module);
      const std::vector<Entry> children = children_of(module);
      for (const Entry& child : children) {
        if (child.value != module) parents.emplace(child.value, module);
      }
      for (auto child = children.rbegin(); child != children.rend(); ++child) {
        if (!peek_class(child->value).empty()) open.push_back(child->value);
      }
    }
  }

  const void* root_of(const void* module) const {
    std::set<const void*> above;
    for (auto parent = parents.find(module); parent != parents.end() && above.insert(module).second;
         parent = parents.find(module)) {
      module = parent->second;
    }
    return module;
  }

 private:
  std::unordered_set<const void*> seen;
};

struct CppModules::State {
  std::mutex mutex;
  std::unordered_set<const void*> known;
  std::vector<const void*> modules;       // in the order in which they were made
  std::vector<const void*> met;           // those that the program asked for what they have
  std::unordered_set<const void*> owned;  // parameters that modules had when they were last looked through
  bool grown = false;                     // since then

  void walk(const void* module, const std::string& path, bool sequence_first, const at::Tensor& like,
            std::set<const void*>& above, Network& network) const {
    if (!above.insert(module).second) return;
    const std::string type = peek_class(module);
    sequence_first = sequence_first || hooks::is_sequence_first(type);
    for (const Entry& parameter : parameters_of(module)) {
      at::Tensor tensor = read_tensor(parameter.value, like);
      if (!tensor.defined()) continue;
      network.parameters.push_back(
          hooks::found_parameter(type, path, parameter.name, std::move(tensor), sequence_first));
    }
    for (const Entry& buffer : buffers_of(module)) {
      at::Tensor tensor = read_tensor(buffer.value, like);
      if (tensor.defined()) network.buffers.emplace_back(hooks::path_below(path, buffer.name), std::move(tensor));
    }
    for (const Entry& child : children_of(module)) {
      walk(child.value, hooks::path_below(path, child.name), sequence_first, like, above, network);
    }
    above.erase(module);
  }
};

CppModules::CppModules() : state_(std::make_unique<State>()) {}
CppModules::~CppModules() = default;

void CppModules::add(const void* module) {
  const std::lock_guard lock(state_->mutex);
  state_->grown = true;
  if (state_->known.insert(module).second) state_->modules.push_back(module);
}

void CppModules::meet(const void* module) {
  const std::lock_guard lock(state_->mutex);
  auto& met = state_->met;
  if (!met.empty() && met.back() == module) return;
  state_->grown = state_->grown || std::erase(met, module) == 0;
  met.push_back(module);
}

bool CppModules::may_have(const at::Tensor& leaf, bool) {
  const std::lock_guard lock(state_->mutex);
  return state_->grown || state_->owned.contains(leaf.unsafeGetTensorImpl());
}

std::optional<Network> CppModules::network_of(const at::Tensor& leaf) {
  const std::lock_guard lock(state_->mutex);
  Forest forest;
  forest.grow({state_->met.rbegin(), state_->met.rend()});
  // Of those that nobody has, a network comes before a part of it.
  std::unordered_set<const void*> children;
  for (const void* module : state_->modules) {
    for (const Entry& child : children_of(module)) children.insert(child.value);
  }
  std::vector<const void*> roots, rest;
  for (const void* module : state_->modules) (children.contains(module) ? rest : roots).push_back(module);
  std::stable_partition(roots.begin(), roots.end(), [](const void* module) {
    const std::vector<Entry> below = children_of(module);
    return std::any_of(below.begin(), below.end(),
                       [](const Entry& child) { return !children_of(child.value).empty(); });
  });
  forest.grow(roots);
  forest.grow(rest);
  state_->owned.clear();
  for (const auto& [parameter, module] : forest.owners) state_->owned.insert(parameter);
  state_->grown = false;
  const auto owner = forest.owners.find(leaf.unsafeGetTensorImpl());
  if (owner == forest.owners.end()) return std::nullopt;
  const void* root = forest.root_of(owner->second);
  Network network;
  network.language = "C++";
  network.type = peek_class(root);
  std::set<const void*> above;
  state_->walk(root, "", false, leaf, above, network);
  return network;
}

}  // namespace dds::attach
