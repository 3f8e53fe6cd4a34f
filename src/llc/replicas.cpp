#include "src/llc/replicas.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "src/base/check.hpp"
#include "src/llc/streams.hpp"
#include "src/model/random.hpp"

namespace dds {
namespace {

constexpr std::int64_t kComparedSamples = 32;
constexpr double kComparedDistance = 0.01;  // in every weight, over 1 + |w*|

/// Beside w*, where a loss that is exactly least has no gradient to compare.
bool same_gradient(const Replica& first, const Replica& other, const Objective& objective, std::uint64_t seed) {
  const auto& start = objective.start();
  if (other.weights().numel() != start.numel()) return false;
  const auto few = std::min(objective.samples(), kComparedSamples);
  const Batch batch{objective.all().data.slice(0, few), {}};
  const auto beside = at::empty_like(start)
                          .normal_(0, 1, generator_for(start.device(), seed, kReplicaStream))
                          .mul_(kComparedDistance * (1 + start.norm().item<double>()))
                          .add_(start);
  for (const Replica* each : {&first, &other}) each->weights().copy_(beside);
  const bool same = objective.gradient(first, batch).equal(objective.gradient(other, batch));
  for (const Replica* each : {&first, &other}) each->weights().copy_(start);
  return same;
}

/// Chains of this process that run at the same time.
std::int64_t parallel_chains(const LlcOptions& options) {
  const std::int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const std::int64_t ranks = options.ranks() ? options.ranks()->size() : 1;
  return std::min(options.threads().value_or(cores), (options.chains() + ranks - 1) / ranks);
}

}  // namespace

std::string add_replicas(std::vector<Replica>& replicas, const Problem& problem, const LlcOptions& options,
                         const std::vector<std::string>& names, const Objective& objective) {
  std::string made = "in turn";
  if (!objective.start().device().is_cpu()) return made;
  const bool by_factory = static_cast<bool>(options.factory());
  for (std::int64_t i = 1; i < parallel_chains(options); ++i) {
    auto module = by_factory ? build_model(options.factory(), problem.model) : clone_model(problem.model);
    if (!module) return made;
    Replica replica(std::move(module), problem.forward, names);
    if (!same_gradient(replicas.front(), replica, objective, options.seed())) {
      if (by_factory)
        throw_invalid("estimate_llc", "the gradient of the factory's model", "another", "that of the model itself");
      return made;
    }
    replicas.push_back(std::move(replica));
    made = by_factory ? "factory" : "clone";
  }
  return made;
}

}  // namespace dds
