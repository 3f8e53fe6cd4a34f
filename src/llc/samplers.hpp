// The samplers: how a chain moves, and what calibration and verdict must know of it. A sampler stands in samplers.cpp
// alone, as a function that advances a chain and a row of the table there. Its public name is in <dds/llc.hpp>.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/llc.hpp>
#include <functional>
#include <string_view>

#include "src/model/replica.hpp"

namespace dds {

class Chain;

/// The density that a chain samples, and the size of its steps:
///   exp(-U(w)),   U = F + gamma/2 |w - w*|^2,   F = n_beta excess(w)
struct Dynamics {
  Sampler sampler = Sampler::Sgld;
  double n_beta = 0;
  double gamma = 0;
  double eps = 0;
  at::Tensor scale = {};  ///< sqrt(P), P the diagonal preconditioner; undefined: P = 1
  double box = 0;         ///< 0: none
};

/// What an advance leaves behind.
struct Keep {
  bool draws = false;    ///< the trace, and what is gathered with it
  bool moments = false;  ///< the running second moment of grad U
};

/// One call of a sampler: up to `steps` steps of a chain on a replica that stands where the chain does.
struct Walk {
  const Replica& replica;
  const Dynamics& dynamics;
  std::int64_t steps;
  Keep keep;
  const std::function<bool()>& stop;  ///< asked before each step; true: no further one
};

struct SamplerPolicy {
  Sampler sampler;
  std::string_view name;
  /// Moves the replica, records draws in the chain, and says there if it diverged.
  void (*advance)(Chain& chain, const Walk& walk);
  /// Proposals are accepted or refused by the loss over all samples. There is then no bias at any step size, the step
  /// is tuned to an acceptance, and mini-batches are no valid input.
  bool metropolis = false;
  /// The noise of mini-batches leaves a bias of first order in eps, in lambda and in E[(w - w*) . grad U], that the
  /// sampler does not estimate.
  bool keeps_batch_bias = false;
  /// P up to a factor, from the second moment of grad U along Sgld chains, element by element. Null: P = 1.
  at::Tensor (*preconditioner)(const at::Tensor& second_moment) = nullptr;
};

/// Null for Automatic and for what is no sampler.
const SamplerPolicy* find_policy(Sampler sampler);
/// Throws InvalidArgument where `find_policy` is null.
const SamplerPolicy& policy_of(Sampler sampler);

/// What Automatic stands for.
Sampler automatic_sampler(bool full_batch, std::int64_t parameters);

}  // namespace dds
