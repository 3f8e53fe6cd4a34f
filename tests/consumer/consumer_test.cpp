// A training with a Monitor in a user's debug build: every row of every layer must arrive, in every step.
#include <torch/torch.h>

#include <cstdlib>
#include <dds/dds.hpp>
#include <iostream>

#ifdef NDEBUG
#error "the point of this program is to be compiled without NDEBUG"
#endif

namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "failed: " << what << '\n';
  std::exit(1);
}

}  // namespace

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Conv2d(1, 4, 3), torch::nn::ReLU(), torch::nn::Flatten(),
                              torch::nn::Linear(4 * 36, 10));
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  const torch::Tensor x = torch::randn({16, 1, 8, 8}), y = torch::randint(0, 10, {16}, torch::kLong);

  constexpr int kSteps = 200;
  const auto log = std::make_shared<dds::log::Memory>();
  dds::Monitor monitor(*model, dds::MonitorOptions().every(1).reduction(dds::Reduction::Mean), log);
  for (int i = 0; i < kSteps; ++i) {
    auto step = monitor.step();
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(model->forward(x), y).backward();
    optimizer.step();
  }
  expect(log->signatures.size() == kSteps * 2 * 2, "two layers and two sides in every step");
  for (const dds::Signature& signature : log->signatures) {
    expect(to_string(signature.status) == "ok", "every reading is in order");
    expect(signature.rows == (signature.layer == "0" ? 16 * 36 : 16), "no row is missing");
    expect(signature.sigma_max.has_value(), "every reading has its numbers");
  }

  const auto signatures = dds::read({*model, dds::categorical(), dds::Data(x)});
  expect(signatures.size() == 4, "a checkpoint read has every layer and side");
  for (const dds::Signature& signature : signatures)
    expect(signature.dtype == torch::kDouble, "a checkpoint is read in fp64");
  return 0;
}
