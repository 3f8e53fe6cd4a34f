// A local learning coefficient and nothing else, of two networks that compute the same function and whose coefficient
// is known in closed form: a linear layer, which is regular, and two of them, which are not.
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <iostream>

namespace nn = torch::nn;

constexpr std::int64_t kInputs = 4, kHidden = 3, kOutputs = 3, kRank = 1, kSamples = 1000;

/// The most singular of the parameters that make the function: all of its rank in the first coordinates.
nn::Linear layer(std::int64_t in, std::int64_t out) {
  nn::Linear linear(nn::LinearOptions(in, out).bias(false));
  const torch::NoGradGuard no_grad;
  linear->weight.zero_();
  linear->weight.diagonal().narrow(0, 0, kRank).fill_(1);
  return linear;
}

void print(const char* name, nn::Sequential& model, const dds::LlcOptions& options, double exact) {
  const torch::Tensor x = torch::randn({kSamples, kInputs});
  const dds::LlcEstimate estimate =
      dds::estimate_llc({*model, dds::gaussian(), dds::Data(x, model->forward(x).detach())}, options);
  std::cout << name << ": lambda_hat " << estimate.lambda.value_or(0) << ", 95 % interval [" << estimate.low.value_or(0)
            << ", " << estimate.high.value_or(0) << "] at gamma " << estimate.settings.gamma << "; in closed form "
            << exact << "; " << estimate.settings.parameters << " parameters; " << estimate.verdict() << '\n';
}

int main() {
  torch::manual_seed(0);
  const dds::LlcOptions options = dds::LlcOptions().target_error(0.05).threads(1);
  nn::Sequential one(layer(kInputs, kOutputs));
  print("one layer", one, options, dds::regular_coefficient(kInputs * kOutputs).lambda);
  // Along the directions in which nothing changes a chain would drift for ever. A gamma that is given holds it, and the
  // estimate is then the localised lambda_hat(gamma), which is smaller.
  nn::Sequential two(layer(kInputs, kHidden), layer(kHidden, kOutputs));
  print("two layers", two, dds::LlcOptions(options).gamma(10),
        dds::reduced_rank_coefficient(kInputs, kHidden, kOutputs, kRank).lambda);
  return std::cout.flush() ? 0 : 1;  // a full disk
}
