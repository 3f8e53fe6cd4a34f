// A TorchScript archive, as torch.jit.save in Python writes it: the code comes with the weights, so that nothing has to
// be known of its class. Makes one first where there is none:
//   torchscript [FILE]
// What can be read: every parameter and its layer, by the names that it had, in fp64 and with the true Fisher; a
// Monitor and estimate_llc take it the same way. What cannot: an archive that was frozen, which has no parameters any
// more, only constants, and a layer that the archive's own code runs without one (a ReLU), as everywhere.
#include <torch/script.h>
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <filesystem>
#include <iostream>

/// What scripting a small Python module would leave: two layers of the user's own, with code for the whole.
void save_example(const std::string& path) {
  torch::jit::Module body("Body"), model("Net");
  body.register_parameter("weight", 0.3 * torch::randn({32, 8}), /*is_buffer=*/false);
  body.define("def forward(self, x):\n  return x.matmul(self.weight.t())\n");
  model.register_module("body", body);
  model.register_parameter("head", 0.3 * torch::randn({4, 32}), /*is_buffer=*/false);
  model.define("def forward(self, x):\n  return torch.relu(self.body.forward(x)).matmul(self.head.t())\n");
  model.save(path);
}

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "model.pt";
  if (!std::filesystem::exists(path)) save_example(path);

  const dds::ScriptModel model = dds::load_script(path);
  torch::manual_seed(0);
  const torch::Tensor probe = torch::randn({512, 8});
  for (const dds::Signature& s : dds::read({*model.module, dds::categorical(), dds::Data(probe), model.forward})) {
    std::cout << s.layer << ' ' << to_string(s.side);
    if (s.has_numbers()) {
      std::cout << "  rank " << *s.rank << " of " << *s.width << "  sigma_min+ " << s.sigma_min_plus.value_or(0)
                << "  floor " << *s.floor;
    }
    std::cout << "  " << to_string(s.status) << '\n';
  }
  return std::cout.flush() ? 0 : 1;  // a full disk
}
