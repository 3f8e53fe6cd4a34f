// The noise floor against what it bounds: the same network run in fp32 and in fp64 on the same inputs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/recorder.hpp>
#include <dds/spectrum.hpp>

#include "tests/support.hpp"

namespace dds {
namespace {

namespace F = torch::nn::functional;

enum class Activation { Relu, Tanh };
enum class Loss { Squares, CrossEntropy };

torch::nn::Sequential network(std::int64_t depth, std::int64_t width, Activation activation) {
  torch::nn::Sequential net;
  for (std::int64_t l = 0; l < depth; ++l) {
    net->push_back(torch::nn::Linear(width, l + 1 < depth ? width : 10));
    if (l + 1 == depth) continue;
    if (activation == Activation::Relu) {
      net->push_back(torch::nn::ReLU());
    } else {
      net->push_back(torch::nn::Tanh());
    }
  }
  return net;
}

at::Tensor loss_of(const at::Tensor& out, const at::Tensor& y, Loss loss) {
  if (loss == Loss::CrossEntropy) return F::cross_entropy(out, y, F::CrossEntropyFuncOptions().reduction(torch::kSum));
  return (out - F::one_hot(y, 10).to(out.dtype())).pow(2).sum();
}

struct Sides {
  std::vector<at::Tensor> activations, gradients;  // of each layer, fp64
};

Sides captured(torch::nn::Sequential& net, const at::Tensor& x, const at::Tensor& y, Loss loss) {
  Recorder recorder(*net);
  recorder.start();
  loss_of(net->forward(x), y, loss).backward();
  Sides sides;
  for (const CapturedLayer& layer : recorder.take().layers) {
    sides.activations.push_back(layer.calls.at(0).output.to(torch::kDouble));
    sides.gradients.push_back(layer.calls.at(0).gradient().to(torch::kDouble));
  }
  return sides;
}

class Floor : public testing::TestWithParam<std::tuple<Activation, Loss, int>> {};

// By Weyl's inequality no singular value is off by more than the norm of the difference; the floor must not be below
// it. On the gradient side that holds only after the loss's cancellation is taken into account, as noise_floor's page
// says.
TEST_P(Floor, BoundsWhatSinglePrecisionDoesToAnyLayer) {
  const auto& [activation, loss, depth] = GetParam();
  double worst_activation = 0, worst_gradient = 0, worst_plain = 0;
  for (const std::int64_t width : {16, 96}) {
    for (const int steps : {0, 40}) {
      torch::manual_seed(depth + width);
      torch::nn::Sequential net = network(depth, width, activation);
      const at::Tensor x = torch::randn({200, width}), y = torch::randint(0, 10, {200}, torch::kLong);
      torch::optim::Adam optimizer(net->parameters(), 3e-3);
      for (int i = 0; i < steps; ++i) {
        optimizer.zero_grad();
        (loss_of(net->forward(x), y, loss) / 200).backward();
        optimizer.step();
      }
      const Sides single = captured(net, x, y, loss);
      net->to(torch::kDouble);
      const Sides both = captured(net, x.to(torch::kDouble), y, loss);
      const auto ratio = [](const at::Tensor& a, const at::Tensor& b) {
        const double sigma_max = torch::linalg_svdvals(b)[0].item<double>();
        return torch::linalg_svdvals(a - b)[0].item<double>() /
               noise_floor(torch::kFloat, b.size(0), b.size(1), sigma_max);
      };
      // delta = 2 (f - y) and delta = p - y: what is subtracted is of this size, with the error that f brings along.
      const at::Tensor out = both.activations.back();
      const double norm = out.norm().item<double>();
      const double terms = loss == Loss::Squares ? 2 * norm : std::sqrt(out.size(0)) + norm / 2;
      const double cancellation = 1 + terms / both.gradients.back().norm().item<double>();
      for (std::size_t l = 0; l < both.activations.size(); ++l) {
        worst_activation = std::max(worst_activation, ratio(single.activations[l], both.activations[l]));
        const double plain = ratio(single.gradients[l], both.gradients[l]);
        worst_plain = std::max(worst_plain, plain);
        worst_gradient = std::max(worst_gradient, plain / cancellation);
      }
    }
  }
  fmt::print(
      "{} {} depth {:2}: error over floor {:.3f} of activations, {:.3f} of gradients ({:.3g} without the "
      "cancellation)\n",
      activation == Activation::Relu ? "relu" : "tanh", loss == Loss::Squares ? "squares      " : "cross entropy",
      depth, worst_activation, worst_gradient, worst_plain);
  EXPECT_LE(worst_activation, 1);
  EXPECT_LE(worst_gradient, 1);
}

INSTANTIATE_TEST_SUITE_P(Networks, Floor,
                         testing::Combine(testing::Values(Activation::Relu, Activation::Tanh),
                                          testing::Values(Loss::Squares, Loss::CrossEntropy),
                                          testing::Values(2, 5, 12)));

}  // namespace
}  // namespace dds
