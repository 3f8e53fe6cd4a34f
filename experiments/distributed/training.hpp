// Data-parallel training of the main job's network, as one process of several or as the only one.
#pragma once

#include <dds/dds.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fashion_mnist/data.hpp"
#include "experiments/harness/gloo.hpp"

namespace distributed {

struct Job {
  std::int64_t steps = 60;
  std::int64_t every = 10;   ///< steps between two readings
  std::int64_t batch = 256;  ///< of all ranks together
  std::int64_t probe = 512;  ///< images of the checkpoint read at the end, of all ranks together; 0: none
  std::uint64_t seed = 0;
  bool together = true;  ///< gradients are averaged over the ranks; false: each trains on its own part alone
  /// What becomes of one rank at the beginning of a step: signal `fate` (0: nothing).
  int victim = 0;
  std::int64_t fatal_step = 0;
  int fate = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, steps, every, batch, probe, seed, together, victim, fatal_step, fate)

/// What one process has to tell.
struct Outcome {
  double reading_seconds = 0;  ///< median over the readings of training steps, waiting for other ranks included
  std::vector<double> step_seconds;
  std::int64_t sent = 0;  ///< bytes, over all readings of training steps
  std::int64_t sends = 0;
  std::vector<std::string> errors;  ///< that the monitor told of
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Outcome, reading_seconds, step_seconds, sent, sends, errors)

/// Trains in fp64, logs to `out`/log on rank 0, and leaves the weights in `out`/weights-RANK.pt. `groups` empty: alone.
Outcome train(const Job& job, const fashion_mnist::Split& split, const std::optional<dds::experiments::Groups>& groups,
              const std::filesystem::path& out);

}  // namespace distributed
