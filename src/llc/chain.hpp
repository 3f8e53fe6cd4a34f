// One chain of Langevin dynamics: its state, and what its draws leave behind.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "src/llc/kernels.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/pass.hpp"
#include "src/llc/samplers.hpp"
#include "src/ranks/parcel.hpp"

namespace dds {

/// What the random numbers of a step are for.
enum class Purpose : std::uint32_t { Noise, Batch, Acceptance };

/// A chain, from w*. It holds its weights and runs on whatever replica it is lent. Its random numbers are a function of
/// seed, number and step, so that its course depends on nothing else. How it moves is the sampler's.
class Chain {
 public:
  Chain(const Objective& objective, std::uint64_t seed, std::uint64_t number);

  struct Trace {
    std::vector<double> excess;    ///< F
    std::vector<double> bias;      ///< of F, by the finite step: (eps/8) grad F . P grad U, or zero
    std::vector<double> distance;  ///< |w - w*|^2
    std::vector<double> along;     ///< grad F . (w - w*), less what the step adds to its mean, see `record`
    void clear();
  };

  /// Runs `steps` steps of the dynamics' sampler, or fewer if `stop` says so before one, or if the chain diverges.
  void advance(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
               const std::function<bool()>& stop);

  /// Forgets the draws so far, their losses and weights.
  void clear_draws();

  /// The chain's weights, for a look at the curvature there.
  const at::Tensor& weights() const { return weights_; }
  bool diverged() const { return diverged_; }
  const Trace& trace() const { return trace_; }
  std::int64_t gradients() const { return gradients_; }
  /// Running mean of (grad U)^2, element by element; undefined if none was kept.
  at::Tensor moments() const;

  /// Mean acceptance probability of the proposals since the last call; NaN if there was none.
  double take_acceptance();
  /// Sum of these probabilities since the draws were last cleared.
  double accepted() const { return accepted_; }
  std::int64_t proposals() const { return proposals_; }

  /// Sums over the draws looked at (one in kLossesEvery, all samples, Plain) of l_i(w) - l_i(w*) and of its square.
  struct Losses {
    at::Tensor sum, squares;  ///< fp64, one number a sample; undefined if none was looked at
    std::int64_t count = 0;
  };
  static constexpr std::int64_t kLossesEvery = 8;
  const Losses& losses() const { return losses_; }

  /// Keeps up to `count` draws of the weights, evenly spaced.
  void keep_weights(std::int64_t count) { weights_to_keep_ = count; }
  const std::vector<at::Tensor>& kept_weights() const { return kept_weights_; }

  /// All that changes in a chain, to go on with it in another process: in a chain of the same seed, number, weights and
  /// data.
  void pack(Parcel& parcel) const;
  /// Throws RankError for what is none of such a chain.
  void unpack(Parcel& parcel);

  // ---- what a sampler works with ----

  const Objective& objective() const { return objective_; }
  /// Of the present step, or of another.
  kernels::RandomKey key(Purpose purpose) const { return key(purpose, step_); }
  kernels::RandomKey key(Purpose purpose, std::uint64_t step) const {
    return {key_, step, static_cast<std::uint32_t>(purpose)};
  }
  /// Loss and gradient where the replica stands; counts the passes.
  Objective::Value look(const Replica& replica, const Batch& batch);
  /// The arithmetic of a step from there, which neither moves nor draws until it is told to.
  WeightPass pass_at(const Walk& walk, const Objective::Value& value) const;
  /// What the sampler keeps from step to step, of the weights' shape; undefined before it is first set.
  at::Tensor& memory() { return memory_; }
  /// Keeps the replica's weights, if this draw is one of those to keep. Before `record`.
  void keep_weights_of(const Replica& replica);
  /// A draw. `eps`: of a step whose bias is to be subtracted, else 0. For Sgld
  ///   E[(w - w*) . grad U] = d + (eps/4) E[grad U . P grad U],
  /// exactly, also on mini-batches, in place of d: that term is subtracted from `along`.
  void record(const Objective::Value& value, double excess, const kernels::Sums& sums, double eps);
  /// Adds (grad U)^2 to the running moments.
  void add_moment(const at::Tensor& drift);
  void count_proposal(double probability);
  void end_step() { ++step_; }
  /// The loss or the weights are no finite numbers: the chain takes no further step.
  void diverge() { diverged_ = true; }

 private:
  template <class Self, class Visitor>
  static void visit(Self& self, const Visitor& visitor);
  void check_what_came() const;

  const Objective& objective_;
  std::uint64_t key_;
  std::uint64_t step_ = 0;
  at::Tensor weights_;
  at::Tensor memory_;
  Trace trace_;
  Losses losses_;
  at::Tensor moments_;
  std::int64_t moments_count_ = 0;
  std::int64_t weights_to_keep_ = 0;
  std::int64_t weights_stride_ = 1;
  std::vector<at::Tensor> kept_weights_;
  bool diverged_ = false;
  std::int64_t gradients_ = 0;
  double accepted_ = 0, asked_accepted_ = 0;
  std::int64_t proposals_ = 0, asked_proposals_ = 0;
};

}  // namespace dds
