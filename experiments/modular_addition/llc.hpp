// The local learning coefficient of the trained networks, over gamma: what it says of the width depends on that.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/modular_addition/training.hpp"

namespace modular_addition {

struct LlcTask {
  Cell cell;
  std::int64_t step = 0;        ///< weights kept after so many steps
  std::optional<double> gamma;  ///< empty: found by the library
  dds::LlcKind kind = dds::LlcKind::Plain;
  std::int64_t max_gradients = 0;  ///< budget, calibration included
  std::string key() const;         ///< "llc A_d64_seed0 step 8000 plain gamma 100"
};

struct LlcResult {
  std::optional<double> lambda, low, high;
  bool converged = false;
  std::string verdict;
  double gamma = 0, resolution = 0;
  std::optional<double> relative_distance;
  std::int64_t draws = 0, gradients = 0;  ///< over all chains; gradients: calibration included
  double seconds = 0;                     ///< one thread
};

/// Over all training pairs, n beta = n / log n, two chains on one thread; all else is the library's own calibration.
LlcResult estimate(const LlcTask& task, const std::filesystem::path& weights);

nlohmann::json to_json(const LlcResult& result);
LlcResult llc_from_json(const nlohmann::json& json);

}  // namespace modular_addition
