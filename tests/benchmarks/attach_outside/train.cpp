// A training that knows nothing of the library: train STEPS.
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 1;
  torch::set_num_threads(1);
  torch::manual_seed(1);
  torch::nn::Sequential model(torch::nn::Linear(64, 128), torch::nn::ReLU(), torch::nn::Linear(128, 128),
                              torch::nn::ReLU(), torch::nn::Linear(128, 10));
  torch::optim::Adam optimizer(model->parameters(), 1e-3);
  const torch::Tensor x = torch::randn({128, 64}), y = torch::randint(0, 10, {128}, torch::kLong);
  double last = 0;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(x), y);
    loss.backward();
    optimizer.step();
    if (step + 1 == steps) last = loss.item<double>();
  }
  std::printf("%.9g\n", last);
  return 0;
}
