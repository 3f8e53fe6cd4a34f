#include "experiments/modular_addition/fourier.hpp"

#include <algorithm>
#include <dds/dds.hpp>
#include <numbers>
#include <numeric>

namespace modular_addition {

namespace {

constexpr double kLearnedShare = 0.95;
constexpr double kDeadShare = 1e-3;

std::vector<double> to_vector(const torch::Tensor& t) {
  const torch::Tensor values = t.contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

}  // namespace

std::vector<bool> Modes::learned() const {
  std::vector<std::size_t> order(logit_power.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logit_power[a] > logit_power[b]; });
  const double all = std::accumulate(logit_power.begin(), logit_power.end(), 0.0);
  std::vector<bool> result(logit_power.size(), false);
  double sum = 0;
  for (const std::size_t k : order) {
    if (sum >= kLearnedShare * all) break;
    result[k] = true;
    sum += logit_power[k];
  }
  return result;
}

torch::Tensor fourier_basis(std::int64_t p) {
  const torch::Tensor residues = torch::arange(p, torch::kDouble), frequencies = torch::arange(1, (p - 1) / 2 + 1);
  const torch::Tensor angles = 2 * std::numbers::pi / static_cast<double>(p) * frequencies.outer(residues);
  return torch::stack({angles.cos(), angles.sin()}, 1).reshape({p - 1, p}) * std::sqrt(2.0 / static_cast<double>(p));
}

std::vector<double> logit_power(const torch::Tensor& logits) {
  const std::int64_t p = logits.size(1);
  const torch::Tensor centred = logits - logits.mean({1}, /*keepdim=*/true);  // softmax does not see the mean over c
  const torch::Tensor cube = centred.view({p, p, p});
  // Frequency (k, k, -k) of the discrete Fourier transform over (a, b, c), and its conjugate.
  const torch::Tensor transformed = torch::fft_fftn(cube);
  const torch::Tensor k = torch::arange(1, (p - 1) / 2 + 1, torch::kLong);
  const torch::Tensor power = transformed.index({k, k, p - k}).abs().square();
  const torch::Tensor variance = (cube - cube.mean()).square().sum() * static_cast<double>(p * p * p);
  return to_vector(2 * power / variance);
}

torch::Tensor dead_rows(const torch::Tensor& matrix, double share) {
  const auto [u, s, v] = torch::linalg_svd(matrix, /*full_matrices=*/matrix.size(0) < matrix.size(1));
  torch::Tensor squares = torch::zeros({matrix.size(1)}, torch::kDouble);
  squares.slice(0, 0, s.size(0)).copy_(s.square());
  const torch::Tensor from_here = squares.flip(0).cumsum(0).flip(0);  // sum of this square and those that follow
  const auto live = (from_here > share * squares.sum()).sum().item<std::int64_t>();
  return v.slice(0, live);
}

Modes modes_of(const Transformer& model, const torch::Tensor& tokens, const torch::Tensor& sums,
               const torch::Tensor& train) {
  auto copy = std::dynamic_pointer_cast<TransformerImpl>(model->clone());
  copy->to(torch::kDouble);
  Modes modes;
  {
    const torch::NoGradGuard no_grad;
    modes.logit_power = logit_power(copy->forward(tokens));
  }
  dds::RecorderOptions only_mid;
  only_mid.layers = {"tap:resid_mid"};
  only_mid.exclusive = true;  // taps have no model that they belong to
  dds::Recorder recorder(*copy, only_mid);
  recorder.start();
  torch::nn::functional::cross_entropy(copy->forward(tokens.index_select(0, train)), sums.index_select(0, train),
                                       torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum))
      .backward();
  const dds::Captured captured = recorder.take();
  const dds::CapturedCall& mid = captured.layers.front().calls.front();

  const torch::NoGradGuard no_grad;
  const torch::Tensor token =
      copy->embed->weight.slice(0, 0, copy->p).matmul(copy->value->weight.t()).matmul(copy->out->weight.t());
  const torch::Tensor vectors = fourier_basis(copy->p).matmul(token);  // (p-1) x width
  const auto by_frequency = [](const torch::Tensor& v) { return v.square().sum({1}).view({-1, 2}).sum({1}); };
  const torch::Tensor lengths = by_frequency(vectors);
  modes.stream_power = to_vector(lengths / lengths.sum());
  const auto share_in = [&](const torch::Tensor& rows, double& dimension) {
    const torch::Tensor dead = dead_rows(rows, kDeadShare);
    dimension = static_cast<double>(dead.size(0)) / static_cast<double>(copy->width);
    return to_vector(by_frequency(vectors.matmul(dead.t())) / lengths);
  };
  modes.dead_fisher = share_in(mid.gradient(), modes.dead_fisher_dimension);
  modes.dead_activation =
      share_in(mid.output - mid.output.mean({0}, /*keepdim=*/true), modes.dead_activation_dimension);
  return modes;
}

}  // namespace modular_addition
