#include "experiments/rrr/reference.hpp"

#include <algorithm>
#include <cmath>

namespace rrr {

namespace ex = dds::experiments;

namespace {

/// Eigenvalues and eigenvectors of A A^T, those of the identity where A is empty, for all chains at once.
struct Modes {
  torch::Tensor values;                  // chains x width
  std::optional<torch::Tensor> vectors;  // chains x width x width; none: the identity

  Modes(const std::optional<torch::Tensor>& a, std::int64_t width) : values(torch::ones({1, width}, torch::kDouble)) {
    if (!a) return;
    auto [eigenvalues, eigenvectors] = torch::linalg_eigh(a->matmul(a->transpose(1, 2)));
    values = eigenvalues.clamp_min(0);
    vectors = eigenvectors;
  }
};

/// The chains' layers, each chains x H_l x H_(l-1).
class Gibbs {
 public:
  Gibbs(const Cell& cell, double gamma, double n_beta, std::int64_t chains, std::uint64_t seed)
      : gamma_(gamma), n_beta_(n_beta), start_(minimum_norm_point(cell)), generator_(ex::generator_of(seed)) {
    for (const torch::Tensor& w : start_) layers_.push_back(w.expand({chains, w.size(0), w.size(1)}));
    target_ = start_.front();
    for (std::size_t l = 1; l < start_.size(); ++l) target_ = start_[l].matmul(target_);
  }

  /// Draws every layer once. Returns n beta K of each chain: the mean over the layers of its expectation over one given
  /// the others.
  torch::Tensor sweep() {
    torch::Tensor sum = draw(0);
    for (std::size_t l = 1; l < layers_.size(); ++l) sum = sum + draw(l);
    return sum / static_cast<double>(layers_.size());
  }

 private:
  std::optional<torch::Tensor> product(std::size_t first, std::size_t end) const {
    std::optional<torch::Tensor> result;
    for (std::size_t l = first; l < end; ++l) result = result ? layers_[l].matmul(*result) : layers_[l];
    return result;
  }

  torch::Tensor draw(std::size_t l) {
    const auto above = product(l + 1, layers_.size()), below = product(0, l);
    const Modes rows(above ? std::optional(above->transpose(1, 2)) : std::nullopt, start_[l].size(0));
    const Modes columns(below, start_[l].size(1));
    const auto to_modes = [&](torch::Tensor w) {
      if (rows.vectors) w = rows.vectors->transpose(1, 2).matmul(w);
      return columns.vectors ? w.matmul(*columns.vectors) : w;
    };
    const auto from_modes = [&](torch::Tensor w) {
      if (rows.vectors) w = rows.vectors->matmul(w);
      return columns.vectors ? w.matmul(columns.vectors->transpose(1, 2)) : w;
    };
    torch::Tensor pull = n_beta_ * target_;
    if (above) pull = above->transpose(1, 2).matmul(pull);
    if (below) pull = pull.matmul(below->transpose(1, 2));
    const torch::Tensor curvature = n_beta_ * rows.values.unsqueeze(2) * columns.values.unsqueeze(1);
    const torch::Tensor precision = curvature + gamma_;
    const torch::Tensor mean = to_modes(pull + gamma_ * start_[l]) / precision;
    layers_[l] = from_modes(mean + torch::randn(layers_[l].sizes(), generator_, torch::kDouble) / precision.sqrt());

    torch::Tensor residual = from_modes(mean);
    if (above) residual = above->matmul(residual);
    if (below) residual = residual.matmul(*below);
    residual = residual - target_;
    return 0.5 * (n_beta_ * residual.square().sum({1, 2}) + (curvature / precision).sum({1, 2}));
  }

  double gamma_, n_beta_;
  Weights start_;
  torch::Generator generator_;
  torch::Tensor target_;
  std::vector<torch::Tensor> layers_;
};

}  // namespace

Reference gibbs(const Cell& cell, double gamma, double n_beta, std::uint64_t seed) {
  // lambda_hat of many weights hardly varies from draw to draw.
  const bool large = cell.parameters() > 5000;
  const std::int64_t chains = large ? 4 : 64, sweeps = large ? 40 : 600, first = sweeps / 4;
  Gibbs gibbs(cell, gamma, n_beta, chains, seed);
  torch::Tensor sum = torch::zeros({chains}, torch::kDouble);
  for (std::int64_t i = 0; i < sweeps; ++i) {
    const torch::Tensor excess = gibbs.sweep();
    if (i >= first) sum += excess;
  }
  const torch::Tensor means = (sum / static_cast<double>(sweeps - first)).contiguous();
  const dds::MeanEstimate mean =
      dds::estimate_mean({means.data_ptr<double>(), static_cast<std::size_t>(means.numel())});
  return {mean.mean, mean.standard_error};
}

namespace {

/// -d log Z / d log nu of two layers of rank 0.
double two_layers_by_quadrature(const Cell& cell, double nu) {
  const double power = static_cast<double>(std::abs(cell.outputs() - cell.hidden()));
  const double half_inputs = static_cast<double>(cell.inputs()) / 2;
  const bool pairs = std::min(cell.hidden(), cell.outputs()) == 2;
  // Over s = e^t: g and g s^2 summed over the s below, z over one or two singular values; of each its slope in log nu.
  constexpr double kStep = 0.01;
  double one = 0, square = 0, z = 0, one_slope = 0, square_slope = 0, z_slope = 0;
  for (double t = -(std::log(nu) / 2 + 20); t < 2.5; t += kStep) {
    const double s2 = std::exp(2 * t);
    const double g = kStep * std::exp((power + 1) * t - s2 / 2 - half_inputs * std::log1p(nu * s2));
    const double slope = -half_inputs * nu * s2 / (1 + nu * s2) * g;  // dg / d log nu
    z += pairs ? g * (s2 * one - square) : g;
    z_slope += pairs ? slope * (s2 * one - square) + g * (s2 * one_slope - square_slope) : slope;
    one += g;
    square += g * s2;
    one_slope += slope;
    square_slope += slope * s2;
  }
  return -z_slope / z;
}

/// Over w_1 = e^t and w_2 = e^u: K and the localisation are even. A potential of one weight has w_2 to the power 0.
double crossing_by_quadrature(const Cell& cell, double gamma, double n_beta) {
  constexpr double kStep = 0.05;
  const double first_power = 2 * static_cast<double>(cell.powers.front());
  const double second_power = cell.powers.size() == 2 ? 2 * static_cast<double>(cell.powers.back()) : 0;
  const double last = std::log(10 / std::sqrt(gamma)), first = last - 40;
  double sum = 0, excess = 0;
  for (double t = first; t < last; t += kStep) {
    for (double u = first; u < last; u += kStep) {
      const double k = n_beta * std::exp(first_power * t + second_power * u);
      const double weight = std::exp(t + u - k - gamma / 2 * (std::exp(2 * t) + std::exp(2 * u)));
      sum += weight;
      excess += k * weight;
    }
  }
  return excess / sum;
}

}  // namespace

Reference reference(const Cell& cell, double gamma, double n_beta, std::uint64_t seed) {
  if (const auto exact = quadrature(cell, gamma, n_beta)) return {*exact, 0};
  return gibbs(cell, gamma, n_beta, seed);
}

std::optional<double> quadrature(const Cell& cell, double gamma, double n_beta) {
  if (cell.crossing() && cell.powers.size() <= 2) return crossing_by_quadrature(cell, gamma, n_beta);
  if (cell.two_layers() && cell.rank == 0 && std::min(cell.hidden(), cell.outputs()) <= 2)
    return two_layers_by_quadrature(cell, n_beta / (gamma * gamma));
  return std::nullopt;
}

}  // namespace rrr
