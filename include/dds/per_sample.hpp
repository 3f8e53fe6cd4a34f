// Per-sample gradients of a model, in factored form or in full, and the Gram matrix K_l of each layer l.
//
// g_i is the gradient of the loss of sample i with respect to the parameters of a layer. Its factors are what the
// recorder captures: the layer's input a_i (d entries) and the gradient delta_i at its output (d_out entries). For a
// linear layer
//   g_i = vec(delta_i a_i^T) for the weight,   g_i = delta_i for the bias.
// With T positions t, of a sequence or an image, g_i is a sum:
//   g_i = sum_t vec(delta_it a_it^T).
// For a convolution, a_it is a window of the input. For a recurrent layer, delta_it is the gradient at the
// pre-activations of its gates.
//
// The norms |g_i| (for differential privacy, data selection) and K_l follow from these factors without g_i in full:
//   K_l = (1/n) (g_i . g_j)_ij,   n x n.
// K_l has the non-zero eigenvalues of the layer's empirical Fisher block (1/n) sum_i g_i g_i^T. It is contracted in the
// order that takes fewer multiplications; A_i and D_i have the rows a_it and delta_it:
//   over positions  K_ij = (1/n) sum_tt' (a_it . a_jt' + [1 with bias]) (delta_it . delta_jt')   n^2 T^2 (d + d_out)
//   over entries    K_ij = (1/n) <A_i^T D_i, A_j^T D_j>                                  n T d d_out + n^2 d d_out
// A linear layer with T = 1 thus costs n^2 (d + d_out) rather than n^2 d d_out. Only the upper triangle is computed.
//
// The model is not changed.
//
// Layers: Linear, Bilinear, Conv and ConvTranspose in all dimensions, Embedding, EmbeddingBag, BatchNorm, InstanceNorm,
// LayerNorm, GroupNorm, PReLU, LSTM, GRU, RNN and their cells, MultiheadAttention, and raw parameters in matmul, mm,
// bmm, mv, addmm, baddbmm, addmv or einsum.
//
// Parameters may be tied, and layers may run several times: g_i of a parameter is the sum over all its uses. K_l of two
// uses therefore has two cross terms besides K_l of each.
//
// Of a complex parameter w = u + iv, g_i is what LibTorch's .grad is: the gradient by u plus i times the gradient by v.
// Norms and K_l take u and v as two real entries.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/patterns.hpp>
#include <dds/problem.hpp>
#include <dds/recorder.hpp>
#include <dds/signature.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

/// Where the samples are in the output of a layer, as told by the user. The output has n samples of k rows each.
struct SampleDim {
  enum class Order {
    SampleMajor,    ///< index i k + j is row j of sample i: (n, k) flattened
    PositionMajor,  ///< index j n + i is row j of sample i: (k, n) flattened
  };
  std::int64_t dim = 0;  ///< the dimension that counts samples: of size n, or n k with the rows folded in
  Order order = Order::SampleMajor;
};

struct PerSampleOptions {
  /// The names of the layers to compute gradients of.
  TORCH_ARG(Patterns, layers) = std::nullopt;
  /// Where the samples are, by pattern on the layer's name. The first pattern that matches counts. It overrides what
  /// the library knows or measures.
  using SampleRule = std::pair<std::string, SampleDim>;
  TORCH_ARG(std::vector<SampleRule>, samples) = {};
  /// What the captured gradients are multiplied by to be those of the per-sample losses: n for a loss averaged over n
  /// samples. Finite, not 0. It may differ from 1 only for a recording of the user's own step.
  TORCH_ARG(double, scale) = 1;
  /// The work is done in blocks, so that temporaries take about this many bytes at most. At least 1. Results and
  /// captured tensors come on top.
  TORCH_ARG(std::int64_t, max_bytes) = std::int64_t{32} << 20;
  /// Compare sum_i g_i of every parameter with its gradient by autograd. If the two differ, a use was not captured (a
  /// weight penalty in the loss, an unknown operator), and the parameter has Status::NotObservable.
  /// Cost: the weights' part of a backward pass. Applies only where the library runs the model, in fp32 and fp64.
  TORCH_ARG(bool, verify) = true;
  /// Run one backward pass per sample for the parameters whose gradients the captured factors do not give (status
  /// SamplesUnknown, NotReplayable, NotObservable). Exact for every model whose samples do not mix, and n times as
  /// slow. Applies only where the library runs the model.
  TORCH_ARG(bool, one_by_one) = false;
};

/// One layer, and whether its gradients exist.
struct PerSampleLayer {
  std::string name;  ///< as in Signature::layer, but without `#k`: all uses of the layer count together
  std::string kind;
  std::vector<std::string> parameters;  ///< by their first name in named_parameters()
  /// False: there are no gradients; `status` says why.
  bool has_gradients = false;
  /// With NonFinite there are gradients, of which some have a NaN or Inf: `detail` says which samples'.
  StatusSet status;
  std::string detail;  ///< the reason of `status` in words
};

/// The eigenvalues of K_l.
struct GramSpectrum {
  std::string layer;
  std::int64_t samples = 0;         ///< n
  std::int64_t parameters = 0;      ///< P, the real entries of g_i: K_l has at most min(n, P) positive eigenvalues
  std::vector<double> eigenvalues;  ///< the largest min(n, P), descending; empty with Status::NonFinite
  double floor = 0;                 ///< eigenvalues at or below it are rounding noise
  StatusSet status;                 ///< NonFinite: K_l has a NaN or Inf. SolverRetried: a slower solver was needed
};

/// How the eigenvalues of K_l are computed, which decides the range lambda_max / lambda_min that they resolve.
enum class GramRange {
  /// From K_l, or from (1/n) sum_i g_i g_i^T if that is smaller, in the dtype of the rows.
  /// Range: 1/eps. floor = 4 sqrt(n) eps lambda_max.
  Gram,
  /// lambda = sigma^2 / n, sigma the singular values of the matrix of rows g_i, which goes slab by slab through a
  /// TriangularAccumulator. Range: 1/eps^2. floor = noise_floor^2 / n (<dds/spectrum.hpp>).
  /// Cost: n T P + n^2 P multiplications for P entries and T positions.
  Rows,
};

/// Per-sample gradients in factored form. It keeps the captured tensors alive and computes on their device. Only
/// gradient() returns g_i in full.
///
/// Names: `layer` is one of layers(), `parameter` one of named_parameters().
/// Results: in the dtype of the captured rows, but in fp32 for fp16 and bf16.
/// Throws InvalidArgument for a name that does not exist, and for a layer or parameter without gradients
/// (PerSampleLayer::has_gradients). The message gives the reason.
class PerSampleGradients {
 public:
  /// n.
  std::int64_t samples() const;
  /// In the order of named_modules().
  const std::vector<PerSampleLayer>& layers() const;
  /// Parameters that have gradients, in the order of named_parameters(). Tied ones are listed once.
  std::vector<std::string> parameters() const;

  /// g_i of one parameter, in full. Shape: n x the parameter's.
  at::Tensor gradient(const std::string& parameter) const;
  /// sum_i g_i: equal to .grad after one backward pass of the summed loss.
  at::Tensor sum(const std::string& parameter) const;

  /// |g_i|^2 over the parameters of a layer. Shape: (n).
  at::Tensor squared_norms(const std::string& layer) const;
  /// |g_i|^2 over all parameters(). Shape: (n).
  at::Tensor squared_norms() const;

  /// K_l. Shape: n x n.
  at::Tensor gram(const std::string& layer) const;

  /// The spectra of all layers that have gradients. With GramRange::Gram, matrices of one size and dtype are solved in
  /// one batch.
  std::vector<GramSpectrum> spectra(GramRange range = GramRange::Gram) const;
  /// The spectra of these layers.
  std::vector<GramSpectrum> spectra(const std::vector<std::string>& layers, GramRange range = GramRange::Gram) const;

  /// Only per_sample_gradients makes these.
  class Impl;
  explicit PerSampleGradients(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

/// The per-sample gradients of one forward and backward pass over the data of `problem`. The library runs the pass
/// itself: in eval mode, in the model's own dtype, with the likelihood's per-sample losses. The caller's data,
/// gradients, mode and generators are left as they were.
///
/// Which rows belong to which sample is *measured*, row by row: further backward passes weight the losses by powers of
/// two, which tell the samples apart and change no rounding. Two passes do for 256 samples, three for 4,096 (in fp16
/// two for 16, and one more for each factor of 4). This finds any order, folding, selection or routing of rows. A layer
/// in which a row holds gradients of several samples has Status::SamplesUnknown, unless the others' share of it is
/// below 1e-9 in fp64, 1e-4 in fp32, 3e-2 in fp16 and bf16. options.samples() overrides the measurement; if it covers
/// all layers, there are no such passes.
///
/// Throws InvalidArgument for a null likelihood, missing targets, a loss that is not of shape (n), a pattern or
/// SampleDim that does not fit, or an invalid option.
/// Throws CaptureError if rows were lost, and what `forward` throws.
PerSampleGradients per_sample_gradients(const Problem& problem, const PerSampleOptions& options = {});

/// The per-sample gradients of a step of the user's own. `samples` is n, at least 1. `captured` comes from a Recorder
/// of this model with RecorderOptions::operators. Take it after the backward pass, and call this before the optimiser's
/// step.
///
/// Rows are not measured here. Which dimension counts samples follows from
///   the operator: convolutions; batch, group and instance norms; cells and recurrent layers;
///   the module: torch::nn's attention and transformers take (sequence, batch, feature);
///   the shape: a layer with n rows along a single dimension has one row per sample;
///   options.samples(), which overrides all of these.
/// Any other layer has Status::SamplesUnknown. The recording follows what its operators do to dimensions, from tensors
/// that were there before it (the data, whose first dimension counts samples) to the loss. So a layer has this status
/// too if its n rows may be others than the samples:
///   they were made within the recording of nothing but parameters, buffers and constants (arange, eye, a tensor of
///   numbers), and never met data row by row. Make the batch before the recording starts;
///   they are those of another dimension of the data, which has n entries too;
///   the loss is a sum over n others: the rows were put into another order.
///
/// If the forward mixes samples (batch norm in training, h - h.mean(0)), g_i is made of row i of the gradient of the
/// summed loss. That layer and all layers that ran before it have Status::Coupled.
///
/// Throws as above, and InvalidArgument if the recording was made without `operators`.
PerSampleGradients per_sample_gradients(torch::nn::Module& model, const Captured& captured, std::int64_t samples,
                                        const PerSampleOptions& options = {});

}  // namespace dds
