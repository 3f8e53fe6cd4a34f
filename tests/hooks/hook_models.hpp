// What tests of hooks share: hooks that note what they are told, and a model with a container and a layer without
// parameters.
#pragma once

#include <torch/torch.h>

#include <dds/hooks.hpp>
#include <string>
#include <vector>

namespace dds::test {

inline constexpr double kTolerance = 1e-12;  // relative, fp64

/// Hooks of all three stages on everything below a model, and what they were told.
struct Spy {
  struct Event {
    std::string stage, name;
    Tensors first, second;
  };
  std::vector<Event> events;
  std::vector<HookHandle> handles;

  explicit Spy(torch::nn::Module& model, const std::string& modules = "*") {
    handles.push_back(register_forward_pre_hook(
        model, modules, [this](const torch::nn::Module&, const std::string& name, const Tensors& inputs) {
          events.push_back({"before", name, inputs, {}});
        }));
    handles.push_back(register_forward_hook(
        model, modules,
        [this](const torch::nn::Module&, const std::string& name, const Tensors& inputs, const Tensors& outputs) {
          events.push_back({"after", name, inputs, outputs});
        }));
    handles.push_back(register_full_backward_hook(
        model, modules,
        [this](const torch::nn::Module&, const std::string& name, const Tensors& inputs, const Tensors& outputs) {
          events.push_back({"backward", name, inputs, outputs});
        }));
  }

  std::vector<std::string> order() const {
    std::vector<std::string> all;
    for (const Event& event : events) all.push_back(event.stage + " " + event.name);
    return all;
  }
};

struct BlockImpl : torch::nn::Module {
  torch::nn::Linear up{nullptr}, down{nullptr};
  torch::nn::ReLU act{nullptr};
  BlockImpl() {
    up = register_module("up", torch::nn::Linear(4, 8));
    act = register_module("act", torch::nn::ReLU());
    down = register_module("down", torch::nn::Linear(8, 4));
  }
  at::Tensor forward(const at::Tensor& x) { return down(hooked(act)(up(x))); }
};
TORCH_MODULE(Block);

struct Residual : torch::nn::Module {
  Block block{nullptr};
  torch::nn::Linear head{nullptr};
  bool through_hooked = true;
  Residual() {
    block = register_module("block", Block());
    head = register_module("head", torch::nn::Linear(4, 3));
    to(torch::kDouble);
  }
  at::Tensor forward(const at::Tensor& x) { return head(x + (through_hooked ? hooked(block)(x) : block(x))); }
};

}  // namespace dds::test
