// Hooks and nothing else: what comes out of every layer, the gradients that come back, and one layer whose output is
// changed. No layer is replaced; the one that is to be changed is called through dds::hooked.
#include <torch/torch.h>

#include <dds/hooks.hpp>
#include <iostream>
#include <map>

struct Net : torch::nn::Module {
  torch::Tensor forward(torch::Tensor x) {
    x = relu->forward(encoder->forward(x));
    x = dds::hooked(middle)(x);
    return head->forward(x);
  }

  torch::nn::Linear encoder = register_module("encoder", torch::nn::Linear(8, 16));
  torch::nn::ReLU relu = register_module("relu", torch::nn::ReLU());
  torch::nn::Linear middle = register_module("middle", torch::nn::Linear(16, 16));
  torch::nn::Linear head = register_module("head", torch::nn::Linear(16, 3));
};

int main() {
  torch::manual_seed(0);
  auto model = std::make_shared<Net>();
  const torch::Tensor x = torch::randn({64, 8}), y = torch::randint(0, 3, {64}, torch::kLong);

  std::map<std::string, double> output_norm, gradient_norm;
  // "*" is a glob on the names of named_modules(); a hook lives as long as its handle.
  auto forward = dds::register_forward_hook(
      *model, "*",
      [&](const torch::nn::Module&, const std::string& name, const dds::Tensors&, const dds::Tensors& outputs) {
        output_norm[name] = outputs[0].norm().item<double>();
      });
  auto backward = dds::register_full_backward_hook(
      *model, "*",
      [&](const torch::nn::Module&, const std::string& name, const dds::Tensors&, const dds::Tensors& gradients) {
        gradient_norm[name] = gradients[0].norm().item<double>();
      });

  const auto pass = [&] { torch::nn::functional::cross_entropy(model->forward(x), y).backward(); };
  const auto print = [&](const char* title) {
    std::cout << title << '\n';
    for (const auto& [name, norm] : output_norm) {
      std::cout << "  " << name << "  |output| " << norm << "  |gradient| " << gradient_norm[name] << '\n';
    }
  };

  pass();
  print("as it is");
  // A layer without parameters leaves no trace of which one it was.
  for (const std::string& name : forward.not_observable()) std::cout << "  " << name << "  needs dds::hooked\n";

  auto ablation = dds::hooked(model->middle)
                      .register_forward_hook([](torch::nn::Module&, const std::string&, const dds::Tensors&,
                                                const dds::Tensors& outputs) -> std::optional<dds::Tensors> {
                        return dds::Tensors{torch::zeros_like(outputs[0])};
                      });
  pass();
  print("with the output of `middle` set to zero");
  ablation.remove();
  pass();
  print("and as it was");
  return std::cout.flush() ? 0 : 1;  // a full disk
}
