#include "experiments/rrr/study.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace rrr {

namespace {

constexpr std::size_t kOwnSpread = 10;  // seeds of a cell that its spread is taken from

/// The statistic over all of `n` seeds, with the interval of 2000 resamples of them.
Interval bootstrap(std::size_t n, const std::function<double(const std::vector<std::size_t>&)>& statistic) {
  constexpr std::size_t kResamples = 2000;
  std::vector<std::size_t> seeds(n);
  std::iota(seeds.begin(), seeds.end(), std::size_t{0});
  const double value = statistic(seeds);
  std::mt19937_64 engine(0);
  std::uniform_int_distribution<std::size_t> pick(0, n - 1);
  std::vector<double> resampled;
  for (std::size_t i = 0; i < kResamples; ++i) {
    for (std::size_t& seed : seeds) seed = pick(engine);
    resampled.push_back(statistic(seeds));
  }
  std::sort(resampled.begin(), resampled.end());
  return {value, resampled[kResamples / 40], resampled[kResamples - 1 - kResamples / 40]};
}

Interval bootstrapped_mean(const std::vector<double>& by_seed) {
  return bootstrap(by_seed.size(), [&](const std::vector<std::size_t>& seeds) {
    double sum = 0;
    for (const std::size_t seed : seeds) sum += by_seed[seed];
    return sum / static_cast<double>(seeds.size());
  });
}

/// values[seed][cell] of one observable at one minimiser.
std::vector<std::vector<double>> table(const Study& study, const std::string& minimiser,
                                       const std::string& observable) {
  std::vector<std::vector<double>> values;
  for (const Reading& reading : study.readings) {
    if (reading.minimiser != minimiser) continue;
    if (reading.cell == 0) values.emplace_back(paper_cells().size());
    values.back()[reading.cell] = reading.values.at(observable);
  }
  return values;
}

}  // namespace

std::vector<std::size_t> Study::of(const Cell& cell, Loss loss) const {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < estimates.size(); ++i) {
    const Task& task = estimates[i].task;
    if (task.loss == loss && task.cell.name() == cell.name()) found.push_back(i);
  }
  return found;
}

Ratios ratios(const Study& study, const std::vector<Cell>& cells, Loss loss, Against against) {
  std::vector<std::vector<double>> values(cells.size());
  std::vector<double> stated(cells.size(), 0);  // squares of the half-widths that the estimates state
  std::vector<double> error(cells.size(), 0);   // of what is divided by
  for (std::size_t c = 0; c < cells.size(); ++c) {
    for (const std::size_t i : study.of(cells[c], loss)) {
      const Estimate& estimate = study.estimates[i];
      if (!estimate.converged) continue;
      const Reference& reference = study.references[i];
      const bool exact = against == Against::ClosedForm;
      const double expected = exact ? cells[c].exact().lambda : reference.lambda;
      values[c].push_back(*estimate.lambda / expected);
      stated[c] += std::pow((*estimate.high - *estimate.low) / 2 / expected, 2);
      if (!exact) error[c] = 1.96 * reference.standard_error / reference.lambda;
    }
  }

  Ratios result{cells, std::vector<std::optional<Interval>>(cells.size()), 0, std::nullopt, std::nullopt};
  Interval mean, worst;
  double variance = 0;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    if (values[c].empty()) continue;
    ++result.present;
    const double value = dds::experiments::average(values[c]);
    const double spread = values[c].size() < kOwnSpread ? std::sqrt(stated[c]) / static_cast<double>(values[c].size())
                                                        : dds::estimate_mean(values[c]).high - value;
    const double half = std::hypot(spread, error[c]);
    result.by_cell[c] = dds::experiments::about(value, half);
    mean.value += value;
    variance += half * half;
    const double off = std::abs(value - 1);
    if (off >= worst.value) worst = {off, std::max(0.0, off - half), worst.high};
    worst.high = std::max(worst.high, off + half);
  }
  if (result.present == 0) return result;
  const auto present = static_cast<double>(result.present);
  mean.value /= present;
  const double half = std::sqrt(variance) / present;
  result.mean = dds::experiments::about(mean.value, half);
  result.worst = worst;
  return result;
}

std::vector<Correlation> correlations(const Study& study) {
  const std::vector<Cell> cells = paper_cells();
  std::vector<double> lambda, capacity;
  for (const Cell& cell : cells) {
    lambda.push_back(cell.exact().lambda);
    capacity.push_back(static_cast<double>(cell.hidden() + cell.rank));
  }
  std::vector<std::string> minimisers = {kExact, kIndependent};
  for (const std::int64_t steps : kDescentSteps) minimisers.push_back(steps_name(steps));
  std::vector<Correlation> result;
  for (const std::string& minimiser : minimisers) {
    for (const auto& [observable, unused] : study.readings.front().values) {
      const auto values = table(study, minimiser, observable);
      std::vector<double> raw, controlled;
      for (const std::vector<double>& of_seed : values) {
        raw.push_back(dds::spearman(of_seed, lambda).rho.value_or(0));
        controlled.push_back(dds::partial_spearman(of_seed, lambda, capacity).rho.value_or(0));
      }
      const Interval averaged = bootstrap(values.size(), [&](const std::vector<std::size_t>& seeds) {
        std::vector<double> mean(cells.size(), 0);
        for (const std::size_t seed : seeds) {
          for (std::size_t c = 0; c < cells.size(); ++c) mean[c] += values[seed][c];
        }
        return dds::spearman(mean, lambda).rho.value_or(0);
      });
      result.push_back({observable, minimiser, bootstrapped_mean(raw), averaged, bootstrapped_mean(controlled)});
    }
  }
  return result;
}

Interval hidden_layer_order(const Study& study, const std::string& minimiser) {
  const std::vector<Cell> cells = paper_cells();
  std::vector<double> shares;
  for (const std::vector<double>& of_seed : table(study, minimiser, "logdet_h1")) {
    double pairs = 0, right = 0;
    for (std::size_t a = 0; a < cells.size(); ++a) {
      for (std::size_t b = a + 1; b < cells.size() && cells[b].hidden() == cells[a].hidden(); ++b) {
        ++pairs;
        right += of_seed[b] > of_seed[a];
      }
    }
    shares.push_back(right / pairs);
  }
  return bootstrapped_mean(shares);
}

}  // namespace rrr
