// A model that another program saved with torch::save, read from its file: the class has to be known, the training does
// not. Saves one first where there is none:
//   saved_model [FILE]
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <filesystem>
#include <iostream>

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return head(torch::relu(body(x))); }

  torch::nn::Linear body = register_module("body", torch::nn::Linear(8, 32));
  torch::nn::Linear head = register_module("head", torch::nn::Linear(32, 4));
};
TORCH_MODULE(Net);

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "model.pt";
  if (!std::filesystem::exists(path)) torch::save(Net(), path);

  Net model;
  torch::load(model, path);  // throws c10::Error where the file holds other names or shapes than the class
  torch::manual_seed(0);
  const torch::Tensor probe = torch::randn({512, 8});
  for (const dds::Signature& s : dds::read({*model, dds::categorical(), dds::Data(probe)})) {
    std::cout << s.layer << ' ' << to_string(s.side);
    if (s.has_numbers()) {
      std::cout << "  rank " << *s.rank << " of " << *s.width << "  sigma_min+ " << s.sigma_min_plus.value_or(0)
                << "  floor " << *s.floor;
    }
    std::cout << "  " << to_string(s.status) << '\n';
  }
  return std::cout.flush() ? 0 : 1;  // a full disk
}
