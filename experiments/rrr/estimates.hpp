// Estimates of the LLC of linear networks whose learning coefficient is known.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "experiments/rrr/reference.hpp"

namespace rrr {

enum class Loss {
  Population,  ///< inputs of unit covariance, no noise, at the minimum-norm point: what is wrong is the sampler's
  Empirical,   ///< 10^4 noisy samples, at their minimiser: the data's error comes on top (two layers)
};

/// What is asked for.
struct Task {
  Cell cell;
  Loss loss = Loss::Population;
  std::uint64_t seed = 0;
  /// 0.5 sqrt(n beta), crossings 0.12, for what is held against the exact value there; else the estimator searches.
  bool gamma_given = false;
  std::int64_t max_gradients = 0;  ///< of an estimate at a given gamma

  std::string key() const;  ///< tells it from all others of a run
};

/// What came of it.
struct Estimate {
  Task task;
  std::optional<double> lambda;
  std::optional<double> low, high;  ///< the estimator's own 95 % interval
  bool converged = false;
  std::string verdict;
  double gamma = 0, n_beta = 0, step_size = 0;
  std::int64_t gradients = 0, draws = 0;
  double seconds = 0;
};

/// Keeps everything but the task; an estimate is read back as that of `task`.
nlohmann::json to_json(const Estimate& estimate);
Estimate from_json(const nlohmann::json& json, const Task& task);

/// With automatic calibration, n beta = n / log n at n = 10^4, one thread.
Estimate estimate(const Task& task);

}  // namespace rrr
