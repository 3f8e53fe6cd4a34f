// One chain of Langevin dynamics, and the ways in which it may move.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/llc.hpp>
#include <functional>
#include <vector>

#include "src/llc/kernels.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/pass.hpp"
#include "src/ranks/parcel.hpp"

namespace dds {

/// How a chain moves, and through which density:
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

/// A chain, from w*. It holds its weights and runs on whatever replica it is lent, and its random numbers are a
/// function of seed, number and step, so that its course depends on nothing else.
///
///   Sgld            w += -(eps/2) grad U + sqrt(eps) xi_k, mini-batches or all samples
///   RmspropSgld     w += -(eps/2) P grad U + sqrt(eps P) xi_k, P fixed (pSGLD, Li et al. 2016, without its drift term,
///                   which vanishes for a fixed P)
///   AveragedNoise   w += -(eps/2) grad U + sqrt(eps) (xi_k + xi_(k+1)) / 2 (Leimkuhler and Matthews 2013): exact on a
///                   quadratic whatever eps, second order elsewhere
///   Mala            an Sgld step on all samples as a proposal, accepted with min(1, p(w') q(w|w') / (p(w) q(w'|w))):
///                   exact
class Chain {
 public:
  Chain(const Objective& objective, std::uint64_t seed, std::uint64_t number);

  struct Trace {
    std::vector<double> excess;    ///< F
    std::vector<double> bias;      ///< discretisation bias of F, see `advance`
    std::vector<double> distance;  ///< |w - w*|^2
    std::vector<double> along;     ///< grad F . (w - w*), less what the step adds to its mean, see `advance`
    void clear();
  };

  /// Runs `steps` steps, or fewer if `stop` says so before one, or if the chain diverges.
  ///
  /// An Sgld step of size eps inflates the variance 1/h of a quadratic direction of curvature h of U to
  /// 1/(h (1 - eps h/4)). On a quadratic the mean of (eps/8) grad F . P grad U is what this adds to that of F, to all
  /// orders in eps, the noise of mini-batch gradients included to first order: `bias` is it, and zero for the others.
  /// And E[(w - w*) . grad U] = d + (eps/4) E[grad U . P grad U] for Sgld, exactly, mini-batches included, instead of
  /// d: that is taken off `along`.
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

  /// Share of the proposals accepted since it was last asked, weighted by their probabilities; NaN if there was none.
  double take_acceptance();
  /// The same since the draws were last cleared.
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

 private:
  template <class Self, class Visitor>
  static void visit(Self& self, const Visitor& visitor);
  void check_what_came() const;
  void langevin(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                const std::function<bool()>& stop);
  void metropolis(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                  const std::function<bool()>& stop);
  Objective::Value look(const Replica& replica, const Batch& batch);
  WeightPass pass_at(const Replica& replica, const Dynamics& dynamics, const Objective::Value& value) const;
  /// `eps`: of a step that has a bias in it, else 0.
  void record(const Objective::Value& value, double excess, const kernels::Sums& sums, double eps);
  void keep_weights_of(const Replica& replica);
  kernels::RandomKey key(std::uint32_t purpose) const { return {key_, step_, purpose}; }

  const Objective& objective_;
  std::uint64_t key_;
  std::uint64_t step_ = 0;
  at::Tensor weights_;
  at::Tensor carried_;  // AveragedNoise: the noise of the last step
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
