// Whether w* is a saddle, and what that does to lambda.
#pragma once

#include <cstdint>
#include <functional>

#include "src/llc/calibration.hpp"
#include "src/llc/objective.hpp"

namespace dds {

/// See LlcDiagnostics::negative_curvature and LlcDiagnostics::saddle.
struct Saddle {
  double curvature = 0;
  double taken_off = 0;
  std::int64_t passes = 0;  ///< forward passes, beside those of the probe
};

/// Looks at w*, until `stop` says so. Leaves the replica there.
Saddle find_saddle(CurvatureProbe& probe, const Objective& objective, const Replica& replica, double n_beta,
                   double gamma, const std::function<bool()>& stop);

}  // namespace dds
