#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <array>
#include <dds/script.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/check.hpp"
#include "src/model/file_kind.hpp"

namespace dds {
namespace {

/// The classes of torch.nn whose parameters are those of one layer, however many these are.
constexpr auto kLayers = std::to_array<std::string_view>({"Linear",
                                                          "Conv1d",
                                                          "Conv2d",
                                                          "Conv3d",
                                                          "ConvTranspose1d",
                                                          "ConvTranspose2d",
                                                          "ConvTranspose3d",
                                                          "Embedding",
                                                          "EmbeddingBag",
                                                          "BatchNorm1d",
                                                          "BatchNorm2d",
                                                          "BatchNorm3d",
                                                          "InstanceNorm1d",
                                                          "InstanceNorm2d",
                                                          "InstanceNorm3d",
                                                          "LayerNorm",
                                                          "GroupNorm",
                                                          "RMSNorm",
                                                          "SyncBatchNorm",
                                                          "LSTMCell",
                                                          "GRUCell",
                                                          "RNNCell",
                                                          "LSTM",
                                                          "GRU",
                                                          "RNN",
                                                          "Bilinear",
                                                          "PReLU"});

/// True for a class of the user's own with a single weight, which is a layer where `dds attach` finds it too.
bool has_single_weight(const torch::jit::Module& script) {
  std::size_t parameters = 0, weights = 0;
  for (const auto& parameter : script.named_parameters(/*recurse=*/false)) {
    ++parameters;
    if (parameter.value.dim() > 1) ++weights;
  }
  return parameters > 0 && weights <= 1;
}

/// The name by which torch::nn::Module::name() would tell the class of a layer, which is how layers are told apart. Of
/// other classes their own.
std::string class_name(const torch::jit::Module& script) {
  const std::string name = script.type()->name() ? script.type()->name()->qualifiedName() : std::string("(unnamed)");
  std::string_view kind = std::string_view(name).substr(name.rfind('.') + 1);
  const bool of_torch = name.starts_with("__torch__.torch.nn.modules.");
  if (of_torch && kind == "NonDynamicallyQuantizableLinear") kind = "Linear";  // out_proj of MultiheadAttention
  const bool is_layer =
      of_torch ? std::find(kLayers.begin(), kLayers.end(), kind) != kLayers.end() : has_single_weight(script);
  return is_layer ? fmt::format("torch::nn::{}Impl", kind) : name;
}

/// Stands for one module of the archive, with its parameters and buffers themselves.
class ScriptStandIn final : public torch::nn::Module {
 public:
  explicit ScriptStandIn(const torch::jit::Module& script) : Module(class_name(script)), script_(script) {
    // Of this module alone, while it has no children: each has its own flag.
    if (script_.hasattr(kTraining)) Module::train(script_.is_training());
    for (const auto& parameter : script.named_parameters(/*recurse=*/false))
      register_parameter(parameter.name, parameter.value, parameter.value.requires_grad());
    for (const auto& buffer : script.named_buffers(/*recurse=*/false)) register_buffer(buffer.name, buffer.value);
    for (const auto& child : script.named_children())
      register_module(child.name, std::make_shared<ScriptStandIn>(child.value));
  }

  void train(bool on) override {
    if (script_.hasattr(kTraining)) script_.setattr(kTraining, on);
    Module::train(on);
  }

 private:
  static constexpr const char* kTraining = "training";
  torch::jit::Module script_;
};

/// The interpreter throws the errors of operators as plain std::runtime_error. As c10::Error they are what the same
/// operators throw elsewhere.
at::Tensor run(torch::jit::Module& script, const std::vector<at::Tensor>& inputs) {
  const torch::jit::GraphOptimizerEnabledGuard not_optimised(false);
  c10::IValue output;
  try {
    output = script.forward({inputs.begin(), inputs.end()});
  } catch (const std::runtime_error& error) {
    TORCH_CHECK(false, error.what());
  }
  if (!output.isTensor()) throw_invalid("ScriptModel::forward", "its result", output.tagKind(), "one tensor");
  return output.toTensor();
}

}  // namespace

ScriptModel script_model(const torch::jit::Module& script) {
  check(script.parameters().size() > 0, "script_model", "the number of parameters", 0,
        "at least one: torch.jit.freeze makes constants of them");
  return {
      std::make_shared<ScriptStandIn>(script),
      [copy = script](torch::nn::Module&, const std::vector<at::Tensor>& inputs) mutable { return run(copy, inputs); }};
}

ScriptModel load_script(const std::filesystem::path& archive) {
  constexpr const char* kExpected =
      "a TorchScript archive: torch.jit.script(model).save(FILE) in Python, or torch.jit.trace(model, input) before "
      "save";
  const auto refuse = [&](const std::string& what) {
    throw IoError(fmt::format("{} is {}, expected {}", archive.string(), what, kExpected));
  };
  if (!std::filesystem::exists(archive))
    throw IoError(fmt::format("{}: there is no such file, expected {}", archive.string(), kExpected));
  if (std::filesystem::is_directory(archive)) refuse("a folder");
  try {
    const torch::jit::Module script = torch::jit::load(archive.string(), at::Device(at::kCPU));
    if (!script.find_method("forward"))
      refuse("an archive without a forward, as torch::save of C++ writes parameters or tensors");
    return script_model(script);
  } catch (const c10::Error& error) {
    const std::string kind = kind_of_file(archive), what = error.what_without_backtrace();
    // LibTorch's own words for another format blame the file, or LibTorch.
    if (!kind.empty() && kind != kTorchScriptArchive) refuse(kind);
    throw IoError(fmt::format("{}: no TorchScript archive: {}", archive.string(), what.substr(0, what.find('\n'))));
  }
}

}  // namespace dds
