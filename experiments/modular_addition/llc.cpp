#include "experiments/modular_addition/llc.hpp"

#include <fmt/format.h>

#include "experiments/harness/harness.hpp"

namespace modular_addition {

using dds::experiments::number;
using dds::experiments::optional_number;
using nlohmann::json;

std::string LlcTask::key() const {
  return fmt::format("llc {} step {} {} gamma {}", cell.name(), step, to_string(kind),
                     gamma ? fmt::format("{}", *gamma) : "found");
}

LlcResult estimate(const LlcTask& task, const std::filesystem::path& weights) {
  Transformer model = kept(task.cell, task.step, weights);
  const auto options = dds::LlcOptions()
                           .kind(task.kind)
                           .chains(2)
                           .gamma(task.gamma)
                           .max_gradients(task.max_gradients)
                           .seed(task.cell.seed)
                           .threads(1);
  const dds::LlcEstimate e =
      dds::estimate_llc({*model, dds::categorical(), pairs_of(*task.cell.arm, task.cell.seed).training()}, options);
  return {e.lambda,
          e.low,
          e.high,
          e.converged(),
          e.verdict(),
          e.settings.gamma,
          e.settings.resolution,
          e.diagnostics.relative_distance,
          e.settings.draws * e.settings.chains,
          e.gradients,
          e.seconds};
}

json to_json(const LlcResult& r) {
  return {{"lambda", number(r.lambda)}, {"low", number(r.low)},
          {"high", number(r.high)},     {"converged", r.converged},
          {"verdict", r.verdict},       {"gamma", r.gamma},
          {"resolution", r.resolution}, {"distance", number(r.relative_distance)},
          {"draws", r.draws},           {"gradients", r.gradients},
          {"seconds", r.seconds}};
}

LlcResult llc_from_json(const json& j) {
  return {optional_number(j["lambda"]),
          optional_number(j["low"]),
          optional_number(j["high"]),
          j["converged"],
          j["verdict"],
          j["gamma"],
          j["resolution"],
          optional_number(j["distance"]),
          j["draws"],
          j["gradients"],
          j["seconds"]};
}

}  // namespace modular_addition
