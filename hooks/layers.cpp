#include "hooks/layers.hpp"

#include <torch/nn/module.h>

#include <utility>

#include "hooks/module_life.hpp"
#include "src/base/check.hpp"

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
  explicit ModelParameters(torch::nn::Module& model) : model_(model), life_(model) {}
  std::string name() const override { return present().name(); }
  void for_each(const std::function<void(const FoundParameter&)>& visit) const override {
    for_each_parameter(present(), visit);
  }
  void for_each_buffer(const std::function<void(const at::Tensor&)>& visit) const override {
    for (const at::Tensor& buffer : present().buffers()) visit(buffer);
  }

 private:
  torch::nn::Module& present() const {
    if (life_.over()) {
      throw_invalid("Recorder", "the model", "gone", "one that outlives the recordings of its recorder or monitor");
    }
    return model_;
  }

  torch::nn::Module& model_;
  ModuleLife life_;
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

}  // namespace dds::hooks
