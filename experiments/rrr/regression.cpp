#include "experiments/rrr/regression.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

namespace rrr {

namespace ex = dds::experiments;

std::int64_t Cell::parameters() const {
  std::int64_t sum = std::ssize(powers);
  for (std::size_t l = 1; l < widths.size(); ++l) sum += widths[l] * widths[l - 1];
  return sum;
}

dds::LearningCoefficient Cell::exact() const {
  return crossing() ? dds::normal_crossing_coefficient(powers) : dds::deep_linear_coefficient(widths, rank);
}

std::string Cell::name() const {
  if (crossing()) return fmt::format("K_{}", fmt::join(powers, "_"));
  if (two_layers()) return fmt::format("{}_{}_{}_{}", inputs(), outputs(), hidden(), rank);
  return fmt::format("{}_r{}", fmt::join(widths, "_"), rank);
}

std::vector<Cell> paper_cells() {
  std::vector<Cell> cells;
  for (std::int64_t hidden = 2; hidden <= 5; ++hidden) {
    for (std::int64_t rank = 1; rank <= hidden; ++rank) cells.push_back({{10, hidden, 5}, rank});
  }
  return cells;
}

std::vector<Cell> case_cells() {
  return {
      {{4, 3, 4}, 1},  {{5, 4, 5}, 2}, {{2, 2, 2}, 0},   // balanced, m = 1
      {{5, 4, 4}, 2},  {{6, 5, 6}, 2},                   // balanced, m = 2
      {{3, 4, 10}, 2}, {{2, 3, 8}, 1}, {{5, 5, 12}, 3},  // a wide output
      {{12, 3, 4}, 2}, {{8, 4, 3}, 1},                   // a wide input
      {{2, 8, 3}, 1},  {{3, 7, 3}, 2}, {{3, 6, 2}, 0},   // a wide hidden layer
  };
}

std::vector<Cell> deep_cells(bool large) {
  std::vector<Cell> cells = {
      {{4, 6, 5, 7}, 2},
      {{5, 5, 5, 5, 5}, 2},
      {{6, 8, 5, 7, 9, 6}, 1},
      {{4, 4, 4, 4, 4, 4, 4}, 1},
  };
  const std::vector<Cell> more = large_cells();
  if (large) cells.insert(cells.end(), more.begin(), more.end());
  return cells;
}

std::vector<Cell> large_cells() { return {{{60, 50, 40, 50}, 5}, {{182, 182, 182, 182}, 10}}; }

std::vector<Cell> crossing_cells() {
  std::vector<Cell> cells;
  for (const std::vector<std::int64_t>& powers : {std::vector<std::int64_t>{1}, {2}, {1, 1}, {1, 2}, {2, 2}, {3, 1}}) {
    cells.push_back({{}, 0, powers});
  }
  return cells;
}

CrossingImpl::CrossingImpl(const std::vector<std::int64_t>& powers)
    : powers(torch::tensor(powers, torch::kDouble)),
      w(register_parameter("w", torch::zeros({std::ssize(powers)}, torch::kDouble))) {}

torch::Tensor CrossingImpl::forward(const torch::Tensor& x) {
  return (std::sqrt(2.0) * w.pow(powers).prod()).expand({x.size(0), 1});
}

ex::DeepLinear network(const Cell& cell, const Weights& weights) {
  const torch::NoGradGuard no_grad;
  ex::DeepLinear model(cell.widths);
  model->to(torch::kDouble);
  for (std::size_t l = 0; l < weights.size(); ++l) model->parameters()[l].copy_(weights[l]);
  return model;
}

Weights minimum_norm_point(const Cell& cell) {
  Weights weights;
  for (std::size_t l = 1; l < cell.widths.size(); ++l) {
    weights.push_back(torch::zeros({cell.widths[l], cell.widths[l - 1]}, torch::kDouble));
    weights.back().diagonal().slice(0, 0, cell.rank).fill_(1);
  }
  return weights;
}

dds::Data compressed(const torch::Tensor& covariance, const torch::Tensor& least_squares) {
  const auto [values, vectors] = torch::linalg_eigh(covariance);
  const torch::Tensor x =
      (vectors * (values * static_cast<double>(values.size(0))).sqrt()).matmul(vectors.t()).contiguous();
  return {x, x.matmul(least_squares.t()).contiguous()};
}

torch::Tensor Samples::covariance() const { return x.t().matmul(x) / static_cast<double>(x.size(0)); }

torch::Tensor Samples::least_squares() const {
  const torch::Tensor cross = x.t().matmul(y) / static_cast<double>(x.size(0));
  return torch::linalg_solve(covariance(), cross).t();
}

Weights minimiser(const Samples& samples, std::int64_t hidden) {
  const auto [values, vectors] = torch::linalg_eigh(samples.covariance());
  const torch::Tensor root = (vectors * values.sqrt()).matmul(vectors.t());
  const torch::Tensor inverse_root = (vectors / values.sqrt()).matmul(vectors.t());
  const auto [u, s, v] = torch::linalg_svd(samples.least_squares().matmul(root), /*full_matrices=*/false);
  const torch::Tensor half = s.slice(0, 0, hidden).sqrt();
  return {(half.unsqueeze(1) * v.slice(0, 0, hidden)).matmul(inverse_root), u.slice(1, 0, hidden) * half};
}

}  // namespace rrr
