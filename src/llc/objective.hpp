// The loss of a model around its weights w*, as chains and calibration see it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/llc.hpp>
#include <optional>
#include <vector>

#include "src/llc/pass.hpp"
#include "src/model/replica.hpp"

namespace dds {

/// Samples to average the loss over, with their losses at w*.
struct Batch {
  Data data;
  at::Tensor start_losses;   ///< l_i(w*), fp64
  std::int64_t number = -1;  ///< of a batch that was dealt
};

/// Floating-point and complex tensors in fp64, others as they are.
Data in_fp64(const Data& data);

/// The excess of the loss over that at w*, on a batch B:
///   l_B(w) - l_B(w*) - s . (w - w*)
///   Plain    s = 0; with control variates s = grad l_B(w*) - grad L_n(w*)
///   Tilted   s = grad l_B(w*)
/// The baseline is that of the same batch, which takes most of the noise of mini-batches away.
class Objective {
 public:
  /// `start` is at w*; its weights are copied. `batch_size` empty: all samples. `dealt_by`: a seed, for control
  /// variates. The samples are then dealt once into K = ceil(n / batch_size) batches, whose sizes differ by at most 1.
  Objective(LikelihoodPtr likelihood, Data data, LlcKind kind, std::optional<std::int64_t> batch_size,
            const Replica& start, std::optional<std::uint64_t> dealt_by = std::nullopt);

  const at::Tensor& start() const { return start_; }           ///< w*
  const at::Tensor& start_gradient() const { return slope_; }  ///< g = grad L_n(w*), over all samples
  double start_loss() const { return start_loss_; }            ///< L_n(w*)
  std::int64_t samples() const { return samples_; }
  /// n / log n, unless n beta is given.
  double n_beta(std::optional<double> given) const;
  bool full_batch() const { return !batch_size_; }
  /// Samples per step where these are not all.
  std::optional<std::int64_t> batch_size() const { return batch_size_; }

  const Batch& all() const { return all_; }
  /// A batch of `size` samples, each drawn from all of them independently of the rest and of earlier batches: the
  /// weights of a chain are then independent of the batch that its loss is averaged over.
  Batch draw(std::int64_t size, const kernels::RandomKey& key) const;
  /// The samples of these numbers.
  Batch pick(const at::Tensor& numbers) const;
  /// The batch of a chain's step: all samples, a draw, or one of those dealt, with probability (its size) / n.
  Batch next(const kernels::RandomKey& key) const;

  /// Gradient of the mean loss over the batch.
  at::Tensor gradient(const Replica& replica, const Batch& batch, Replica::Graph graph = Replica::Graph::Free) const;

  struct Value {
    double excess;
    std::vector<WeightPass::Part> gradient;  ///< of the mean loss: that of the excess less `slope`
    at::Tensor slope;                        ///< s; undefined where it is zero
    at::Tensor losses;                       ///< of the batch's samples, detached
  };
  /// The gradient of the excess, in one vector.
  at::Tensor gradient_of(const Value& value) const;
  /// At the replica's weights.
  Value at(const Replica& replica, const Batch& batch) const;
  /// Forward and backward passes that `at` takes.
  std::int64_t passes() const { return has_slopes() && !slopes_.defined() ? 2 : 1; }

  /// How the gradients of a step's batches differ where the replica stands, by `batches` of them.
  struct Noise {
    double excess = 0;  ///< mean over them
    double trace = 0;   ///< of the covariance of grad l_B - s, in w / sqrt(P)
  };
  /// `scale` is sqrt(P); undefined: P = 1. Mini-batches only.
  Noise noise(const Replica& replica, const at::Tensor& scale, std::int64_t batches, kernels::RandomKey key) const;

  /// The losses of the samples `begin` to `end` - 1 and the gradient, summed, in pieces of the batch's size.
  struct Sum {
    double loss = 0;
    at::Tensor gradient;
  };
  Sum sum(const Replica& replica, std::int64_t begin, std::int64_t end) const;

  /// L_n(w) - L_n(w*) at the replica's weights, over all samples, without a gradient: `start_passes` forward passes.
  double excess(const Replica& replica) const;
  /// What `at` gives on all samples, by a model and data in fp64. The weights and s are as they are.
  double excess_in_fp64(const Replica& replica) const;

  /// Passes that the constructor took, in units of a step.
  std::int64_t start_passes() const { return start_passes_; }

 private:
  at::Tensor losses(const Replica& replica, const Data& data) const;
  at::Tensor losses_of(const Replica& replica, const Data& data) const;
  void measure_start(const Replica& replica);
  void deal(std::uint64_t seed);
  at::Tensor numbers_dealt(std::int64_t batch) const;
  /// s is another one for each mini-batch.
  bool has_slopes() const { return !full_batch() && (kind_ == LlcKind::Tilted || order_.defined()); }
  /// Sum of the losses over all samples of `data`, in pieces of the batch's size, without a gradient.
  double sum_of_losses(const Replica& replica, const Data& data) const;
  /// s, at w*.
  at::Tensor slope(const Replica& replica, const Batch& batch) const;

  LikelihoodPtr likelihood_;
  LlcKind kind_;
  std::optional<std::int64_t> batch_size_;
  std::int64_t samples_;
  Batch all_;
  at::Tensor start_;
  at::Tensor slope_;                 // g
  at::Tensor order_;                 // of the samples as they were dealt; undefined: batches are drawn
  at::Tensor slopes_;                // s of the batches dealt, a row each; undefined: each is found where it is needed
  std::vector<std::int64_t> edges_;  // of the batches in order_
  double start_loss_ = 0;
  std::int64_t start_passes_ = 0;
  bool writes_ = false;  ///< forward or loss write into the data: each pass has copies
};

}  // namespace dds
