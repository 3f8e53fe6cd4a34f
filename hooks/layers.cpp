#include "hooks/layers.hpp"

#include <torch/nn/module.h>

#include <algorithm>

namespace dds::hooks {
namespace {

constexpr std::string_view kLibTorch = "torch::nn::";
constexpr std::string_view kImpl = "Impl";

bool is_sequence_first(const torch::nn::Module& module) {
  const std::string& name = module.name();
  return name.starts_with("torch::nn::MultiheadAttention") || name.starts_with("torch::nn::Transformer");
}

void walk(const torch::nn::Module& module, const std::string& path, bool sequence_first,
          const std::function<void(const FoundParameter&)>& visit) {
  const auto below = [&](const std::string& name) { return path.empty() ? name : path + "." + name; };
  const std::string kind = layer_kind(module);
  sequence_first = sequence_first || is_sequence_first(module);
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    const std::string name = below(parameter.key());
    const std::string layer = kind.empty() ? name : path.empty() ? "(root)" : path;
    visit({layer, kind.empty() ? "Raw" : kind, name, parameter.value(), sequence_first});
  }
  for (const auto& child : module.named_children()) walk(*child.value(), below(child.key()), sequence_first, visit);
}

}  // namespace

std::string layer_kind(const torch::nn::Module& module) {
  std::string_view name = module.name();
  if (name.substr(0, kLibTorch.size()) != kLibTorch) return "";
  name.remove_prefix(kLibTorch.size());
  if (name.size() < kImpl.size() || name.substr(name.size() - kImpl.size()) != kImpl) return "";
  name.remove_suffix(kImpl.size());
  return name == "MultiheadAttention" ? "" : std::string(name);
}

void for_each_parameter(const torch::nn::Module& model, const std::function<void(const FoundParameter&)>& visit) {
  walk(model, "", false, visit);
}

const void* storage_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage()) return nullptr;
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

std::uint32_t version_of(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_inference()) return 0;
  return tensor.unsafeGetTensorImpl()->version_counter().current_version();
}

LayerIndex::LayerIndex(torch::nn::Module& model) : model_(&model) {
  for_each_parameter(model, [this](const FoundParameter& found) {
    if (by_name_.try_emplace(found.layer, layers_.size()).second) layers_.push_back({found.layer, found.kind});
  });
}

void LayerIndex::refresh() {
  by_storage_.clear();
  for_each_parameter(*model_, [this](const FoundParameter& found) {
    const at::Tensor& tensor = found.tensor;
    const void* storage = storage_of(tensor);
    const auto layer = by_name_.find(found.layer);
    if (!storage || layer == by_name_.end()) return;
    const std::size_t number = layer->second;
    const std::int64_t begin = tensor.storage_offset();
    std::vector<Parameter>& here = by_storage_[storage];
    const auto tied = std::find_if(here.begin(), here.end(), [&](const Parameter& p) { return p.begin == begin; });
    if (tied == here.end()) {
      here.push_back({{number}, begin, begin + tensor.numel(), tensor});
    } else if (std::find(tied->layers.begin(), tied->layers.end(), number) == tied->layers.end()) {
      tied->layers.push_back(number);
    }
  });
}

bool LayerIndex::moved() const {
  return std::any_of(by_storage_.begin(), by_storage_.end(), [](const auto& entry) {
    return std::any_of(entry.second.begin(), entry.second.end(),
                       [&](const Parameter& parameter) { return storage_of(parameter.tensor) != entry.first; });
  });
}

const Parameter* LayerIndex::find(const at::Tensor& tensor) const {
  const void* storage = storage_of(tensor);
  if (!storage) return nullptr;
  const auto here = by_storage_.find(storage);
  if (here == by_storage_.end()) return nullptr;
  const std::int64_t offset = tensor.storage_offset();
  for (const Parameter& parameter : here->second) {
    if (parameter.begin <= offset && offset < parameter.end && storage_of(parameter.tensor) == storage)
      return &parameter;
  }
  return nullptr;
}

bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*') {
      ++p, ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (star != std::string_view::npos) {
      p = star + 1;  // let the last '*' take one character more
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace dds::hooks
