// The draws of all chains at one gamma and step size, summed up.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "src/llc/chain.hpp"
#include "src/llc/diagnostics.hpp"

namespace dds {

/// The draws of all chains under one dynamics, summed up. Numbers that do not exist are empty.
struct Stage {
  double gamma = 0;
  double step_size = 0;
  std::int64_t burn_in = 0;
  std::int64_t draws = 0;  ///< per chain: those of the shortest
  std::int64_t diverged = 0;

  std::optional<double> lambda;  ///< mean of F less its discretisation
  std::optional<double> standard_error;
  std::optional<double> r_hat, ess, drift, acceptance, discretisation, below_baseline;
  std::optional<double> mean_distance;  ///< E|w - w*|^2
  /// gamma E|w - w*|^2 over d - E[grad F . (w - w*)]; empty where the latter is not above its noise, or in a box, at
  /// whose walls the identity has terms of its own.
  std::optional<double> distance_ratio, distance_ratio_error;
  std::optional<double> gamma_response, gamma_response_error;
  std::optional<double> functional_variance;
  std::optional<double> batch_heat;  ///< (eps/8) tr(P C), see LlcDiagnostics::batch_noise
  diagnostics::Traces trace;         ///< F less its discretisation

  /// The chains need not be run on: their error is within `target` of lambda, they agree and stand, and, if
  /// `whole_distance`, have come as far from w* as they must.
  bool settled(double target, bool whole_distance) const;
};

/// The chains' draws since they were last cleared. `known_identity`: E[(w - w*) . grad U] is known in the stationary
/// state; otherwise there is no distance ratio.
Stage summarise(const std::vector<Chain>& chains, const Dynamics& dynamics, std::int64_t parameters,
                bool known_identity);

/// True where |w - w*|^2 is what it must be, or nothing can be said.
bool distance_is_stationary(const std::optional<double>& ratio, const std::optional<double>& error);

/// A difference of two independent numbers and its standard error.
struct Change {
  double value;
  double error;
};
std::optional<Change> change(const Stage& from, const Stage& to);

}  // namespace dds
