#include "experiments/rrr/readings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rrr {

namespace ex = dds::experiments;

std::string steps_name(std::int64_t steps) { return fmt::format("steps_{}", steps); }

namespace {

constexpr std::int64_t kProbe = 7500;
constexpr double kStart = 0.1;  // standard deviation of the weights that gradient descent starts from
constexpr double kRate = 0.1;   // its step, against a largest curvature near 2
constexpr std::int64_t kFixedRank = 2;

std::map<std::string, double> numbers(const Cell& cell, const Weights& weights, const Samples& samples) {
  ex::DeepLinear model = network(cell, weights);
  const auto signatures = dds::read({*model, dds::gaussian(), dds::Data(samples.x, samples.y)},
                                    dds::ReadOptions()
                                        .fisher(dds::Fisher::Empirical)
                                        .batch_size(kProbe)
                                        .signatures(dds::SignatureOptions().spectra(true)));
  const auto of = [&](std::int64_t layer, dds::Side side) -> const dds::Signature& {
    const dds::Signature& found = *std::find_if(signatures.begin(), signatures.end(), [&](const dds::Signature& s) {
      return s.layer == ex::layer_name(layer) && s.side == side;
    });
    if (found.status.no_numbers()) {
      throw dds::Error(
          fmt::format("cell {}: {} has no numbers: {}", cell.name(), found.layer, to_string(found.status)));
    }
    return found;
  };
  const dds::Signature& output = of(2, dds::Side::Activation);
  const dds::Signature& fisher = of(2, dds::Side::Fisher);
  return {
      {"sigma_min_h2", *output.sigma_min},
      {"sigma_min_h2_ties", *output.at_floor ? 0 : *output.sigma_min},
      {"sigma_fixed_h2", output.spectrum.at(kFixedRank - 1)},
      {"log_lambda_min_h2", *fisher.log10_lambda_min_plus},
      {"logdet_h2", *fisher.logdet_plus},
      {"logdet_h1", *of(1, dds::Side::Fisher).logdet_plus},
      {"sigma_min_h1", *of(1, dds::Side::Activation).sigma_min},
  };
}

/// What the cells of one seed share.
struct Draw {
  torch::Tensor x, noise, left, right;

  Draw(const Cell& cell, torch::Generator& generator)
      : x(torch::randn({kProbe, cell.inputs()}, generator, torch::kDouble)),
        noise(torch::randn({kProbe, cell.outputs()}, generator, torch::kDouble)),
        left(ex::rotation(cell.outputs(), generator)),
        right(ex::rotation(cell.inputs(), generator)) {}

  /// Truths are nested: that of rank r has the first r directions.
  Samples samples(const Cell& cell) const {
    const torch::Tensor truth = left.slice(1, 0, cell.rank).matmul(right.slice(1, 0, cell.rank).t());
    return {x, x.matmul(truth.t()) + noise};
  }
};

}  // namespace

std::vector<Reading> readings(std::uint64_t seed) {
  const std::vector<Cell> cells = paper_cells();
  torch::Generator generator = ex::generator_of(seed);
  const Draw shared(cells.front(), generator);
  const Cell& widest = cells.back();
  const torch::Tensor first = kStart * torch::randn({widest.hidden(), widest.inputs()}, generator, torch::kDouble);
  const torch::Tensor second = kStart * torch::randn({widest.outputs(), widest.hidden()}, generator, torch::kDouble);

  std::vector<Reading> result;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const Cell& cell = cells[c];
    const Samples samples = shared.samples(cell);
    result.push_back({kExact, seed, c, numbers(cell, minimiser(samples, cell.hidden()), samples)});
    const Samples own = Draw(cell, generator).samples(cell);
    result.push_back({kIndependent, seed, c, numbers(cell, minimiser(own, cell.hidden()), own)});

    // Full-batch gradient descent, which sees the samples through two matrices.
    const torch::Tensor covariance = samples.covariance(), target = samples.least_squares();
    Weights w = {first.slice(0, 0, cell.hidden()).clone(), second.slice(1, 0, cell.hidden()).clone()};
    std::int64_t step = 0;
    for (const std::int64_t until : kDescentSteps) {
      for (; step < until; ++step) {
        const torch::Tensor slope = (w[1].matmul(w[0]) - target).matmul(covariance);
        const torch::Tensor slope_first = w[1].t().matmul(slope);
        w[1] = w[1] - kRate * slope.matmul(w[0].t());
        w[0] = w[0] - kRate * slope_first;
      }
      result.push_back({steps_name(until), seed, c, numbers(cell, w, samples)});
    }
  }
  return result;
}

}  // namespace rrr
