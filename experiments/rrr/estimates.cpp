#include "experiments/rrr/estimates.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "experiments/harness/harness.hpp"

namespace rrr {

namespace ex = dds::experiments;
using ex::number;
using ex::optional_number;

namespace {

constexpr std::int64_t kSamples = 10000;
constexpr double kNoise = 1.0;
constexpr double kGivenGamma = 0.5;      // times sqrt(n beta): chains come as far from w* as they must in quick's time
constexpr double kCrossingGamma = 0.12;  // above it little is left of the higher powers
constexpr double kNoisyError = 0.02;     // the data's own is several times that

/// Settings of every estimate: the automatic ones.
dds::LlcOptions options(const Task& task) {
  const double n = static_cast<double>(kSamples), n_beta = n / std::log(n);
  auto options = dds::LlcOptions().n_beta(n_beta).seed(task.seed).threads(1);
  // The landscape is the same however far a chain goes, so that its distance from w* is no objection.
  if (task.gamma_given) {
    options.gamma((task.cell.crossing() ? kCrossingGamma : kGivenGamma) * std::sqrt(n_beta))
        .max_relative_distance(std::numeric_limits<double>::infinity())
        .max_gradients(task.max_gradients);
  }
  if (task.loss == Loss::Empirical) options.target_error(kNoisyError);
  return options;
}

/// The one call of the estimator.
template <class Model>
Estimate ask(const Task& task, Model& model, const dds::Data& data) {
  const dds::LlcEstimate e = dds::estimate_llc({model, dds::gaussian(), data}, options(task));
  return {task,
          e.lambda,
          e.low,
          e.high,
          e.converged(),
          e.verdict(),
          e.settings.gamma,
          e.settings.n_beta,
          e.settings.step_size,
          e.gradients,
          e.settings.draws * e.settings.chains,
          e.seconds};
}

}  // namespace

std::string Task::key() const {
  return fmt::format("{} {} {}", cell.name(), loss == Loss::Population ? "population" : "empirical", seed);
}

nlohmann::json to_json(const Estimate& e) {
  return {{"lambda", number(e.lambda)}, {"low", number(e.low)}, {"high", number(e.high)}, {"converged", e.converged},
          {"verdict", e.verdict},       {"gamma", e.gamma},     {"n_beta", e.n_beta},     {"eps", e.step_size},
          {"gradients", e.gradients},   {"draws", e.draws},     {"seconds", e.seconds}};
}

Estimate from_json(const nlohmann::json& j, const Task& task) {
  return {task,
          optional_number(j["lambda"]),
          optional_number(j["low"]),
          optional_number(j["high"]),
          j["converged"],
          j["verdict"],
          j["gamma"],
          j["n_beta"],
          j["eps"],
          j["gradients"],
          j["draws"],
          j["seconds"]};
}

Estimate estimate(const Task& task) {
  if (task.cell.crossing()) {
    const torch::Tensor rows = torch::zeros({2, 1}, torch::kDouble);
    return ask(task, *Crossing(task.cell.powers), {rows, rows});
  }
  const Weights truth = minimum_norm_point(task.cell);
  torch::Tensor product = truth.front();
  for (std::size_t l = 1; l < truth.size(); ++l) product = truth[l].matmul(product);
  if (task.loss == Loss::Population) {
    return ask(task, *network(task.cell, truth), compressed(torch::eye(task.cell.inputs(), torch::kDouble), product));
  }
  torch::Generator generator = ex::generator_of(task.seed);
  const torch::Tensor x = torch::randn({kSamples, task.cell.inputs()}, generator, torch::kDouble);
  const torch::Tensor noise = torch::randn({kSamples, task.cell.outputs()}, generator, torch::kDouble);
  const Samples samples{x, x.matmul(product.t()) + kNoise * noise};
  return ask(task, *network(task.cell, minimiser(samples, task.cell.hidden())),
             compressed(samples.covariance(), samples.least_squares()));
}

}  // namespace rrr
