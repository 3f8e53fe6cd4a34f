// Good inputs for fuzzers to begin with.
#pragma once

#include <cmath>
#include <dds/log.hpp>
#include <filesystem>
#include <limits>
#include <string>

namespace dds::fuzz {

/// The seed of a run with the largest numbers there are.
inline constexpr int kExtremes = 3;

/// A run of two steps with a row of everything.
inline void write_run(const std::filesystem::path& path, int seed, bool tensorboard = false) {
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  const auto sink = log::directory(path, {.tensorboard = tensorboard});
  sink->describe("options", R"({"every": 10, "layers": ["fc", "a \"b\""], "seed": null})");
  for (const std::int64_t step : {std::int64_t{0}, seed == kExtremes ? kMost : 10}) {
    for (const Side side : {Side::Activation, Side::Fisher}) {
      Signature s;
      s.step = step;
      s.layer = seed == 1 ? "fc" : "block,\"0\"\nü";
      s.kind = "Linear";
      s.side = side;
      s.source = step == 0 ? Source::Step : Source::Read;
      if (side == Side::Fisher) s.fisher_kind = FisherKind{FisherKind::Sampled, 2};
      s.rows = 9, s.width = 4, s.rank = 3, s.structural_bound = 4, s.dead_directions = 1;
      s.sigma_max = 3.5, s.sigma_min = 1e-300, s.sigma_min_plus = 0.5, s.floor = 1e-14;
      s.log10_lambda_min_plus = -4.7, s.log10_trace = 0.25, s.logdet_plus = -31;
      s.at_floor = true;
      s.status = step == 0 ? StatusSet() : StatusSet(Status::Coupled) | Status::Subsampled;
      if (seed == kExtremes) {
        s.dead_directions = step == 0 ? -kMost : kMost;
        s.born = kMost, s.revived = 1;
      }
      s.spectrum = {3.5, 1.0 / 3, 0.5, std::exp(-static_cast<double>(step))};
      sink->write(s);
    }
    LlcEstimate e;
    e.step = step;
    e.kind = step == 0 ? LlcKind::Plain : LlcKind::Tilted;
    e.lambda = 9.75, e.standard_error = 0.3, e.settings.seed = 18446744073709551615u;
    if (step == 0) e.failures = {"r_hat 2", "ess 3"};
    sink->write(e);
    sink->write(Metric{step, "loss", std::exp(-0.1 * static_cast<double>(step))});
  }
}

}  // namespace dds::fuzz
