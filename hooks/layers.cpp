#include "hooks/layers.hpp"

#include <torch/nn/module.h>

#include <algorithm>
#include <utility>

namespace dds::hooks {
namespace {

constexpr std::string_view kLibTorch = "torch::nn::";
constexpr std::string_view kImpl = "Impl";

void walk(const torch::nn::Module& module, const std::string& path, bool sequence_first,
          const std::function<void(const FoundParameter&)>& visit) {
  const std::string& type = module.name();
  sequence_first = sequence_first || is_sequence_first(type);
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    visit(found_parameter(type, path, parameter.key(), parameter.value(), sequence_first));
  }
  for (const auto& child : module.named_children()) {
    walk(*child.value(), path_below(path, child.key()), sequence_first, visit);
  }
}

class ModelParameters final : public ParameterSource {
 public:
  explicit ModelParameters(torch::nn::Module& model) : model_(model) {}
  std::string name() const override { return model_.name(); }
  void for_each(const std::function<void(const FoundParameter&)>& visit) const override {
    for_each_parameter(model_, visit);
  }

 private:
  torch::nn::Module& model_;
};

}  // namespace

std::shared_ptr<ParameterSource> parameters_of(torch::nn::Module& model) {
  return std::make_shared<ModelParameters>(model);
}

FoundParameter found_parameter(std::string_view type, const std::string& path, const std::string& key,
                               at::Tensor tensor, bool sequence_first) {
  const std::string kind = layer_kind(type), name = path_below(path, key);
  const std::string layer = kind.empty() ? name : path.empty() ? "(root)" : path;
  return {layer, kind.empty() ? "Raw" : kind, name, std::move(tensor), sequence_first};
}

std::string path_below(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

bool is_sequence_first(std::string_view type) {
  return type.starts_with("torch::nn::MultiheadAttention") || type.starts_with("torch::nn::Transformer");
}

std::string layer_kind(std::string_view name) {
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

LayerIndex::LayerIndex(std::shared_ptr<ParameterSource> source) : source_(std::move(source)) { add_layers(); }

void LayerIndex::add_layers() {
  source_->for_each([this](const FoundParameter& found) {
    if (by_name_.try_emplace(found.layer, layers_.size()).second) layers_.push_back({found.layer, found.kind});
  });
}

bool LayerIndex::adopt(const at::Tensor& leaf) {
  if (!source_->adopt(leaf)) return false;
  add_layers();
  refresh();
  return true;
}

void LayerIndex::refresh() {
  by_storage_.clear();
  source_->for_each([this](const FoundParameter& found) {
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

}  // namespace dds::hooks
