// The smallest program with a monitor attached: its readings on the screen, nothing written anywhere.
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <iostream>

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(8, 32), torch::nn::Tanh(), torch::nn::Linear(32, 4));
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  const torch::Tensor x = torch::randn({256, 8}), y = torch::randint(0, 4, {256}, torch::kLong);

  const auto print = dds::log::callback([](const dds::Signature& s) {
    std::cout << "step " << s.step << "  " << s.layer << ' ' << to_string(s.side);
    if (s.has_numbers()) {
      std::cout << "  rank " << *s.rank << " of " << *s.width << "  sigma_min+ " << s.sigma_min_plus.value_or(0);
    }
    std::cout << "  " << to_string(s.status) << '\n';
  });
  dds::Monitor monitor(*model, dds::MonitorOptions().every(50).reduction(dds::Reduction::Mean), print);
  for (int i = 0; i < 200; ++i) {
    auto step = monitor.step();
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(model->forward(x), y).backward();
    optimizer.step();
  }
  return std::cout.flush() ? 0 : 1;  // a full disk
}
