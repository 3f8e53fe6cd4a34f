#include "experiments/rrr/reference.hpp"

#include <optional>

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

Reference reference(const Cell& cell, double gamma, double n_beta, std::uint64_t seed) {
  // lambda_hat of many weights hardly varies from draw to draw.
  const bool large = cell.parameters() > 5000;
  const std::int64_t chains = large ? 4 : 64, sweeps = large ? 40 : 600;
  Gibbs gibbs(cell, gamma, n_beta, chains, seed);
  torch::Tensor sum = torch::zeros({chains}, torch::kDouble);
  for (std::int64_t i = 0; i < sweeps; ++i) {
    const torch::Tensor excess = gibbs.sweep();
    if (i >= sweeps / 4) sum += excess;
  }
  const torch::Tensor means = (sum / static_cast<double>(sweeps - sweeps / 4)).contiguous();
  const dds::MeanEstimate mean =
      dds::estimate_mean({means.data_ptr<double>(), static_cast<std::size_t>(means.numel())});
  return {mean.mean, mean.standard_error};
}

}  // namespace rrr
