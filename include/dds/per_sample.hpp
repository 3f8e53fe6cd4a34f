// Per-sample gradients of a model, written out or not, and the Gram matrix K_l of each layer.
//
// g_i is the gradient of the loss l_i of sample i with respect to the parameters of a layer. It is made of what the
// recorder captures: the layer's input a and the gradient delta at its output. For a linear layer
//   g_i = vec(delta_i a_i^T), and g_i = delta_i for its bias.
// Over the positions t of a sequence or an image it is a sum,
//   g_i = sum_t vec(delta_it a_it^T).
// For a convolution, a_it is a window of the input. For a recurrent layer, delta_it is at the pre-activations of its
// gates.
//
// From these factors follow, without writing g_i out, the norms |g_i| (differential privacy, data selection) and
//   K_l = (1/n) (g_i . g_j)_ij,   n x n.
// K_l has the non-zero eigenvalues of the layer's empirical Fisher block (1/n) sum_i g_i g_i^T. It is contracted in the
// order that takes fewer multiplications:
//   over positions  K_ij = (1/n) sum_tt' (a_it . a_jt' + [1 with bias]) (delta_it . delta_jt')   n^2 T^2 (d + d_out)
//   over entries    K_ij = (1/n) <A_i^T D_i, A_j^T D_j>                                  n T d d_out + n^2 d d_out
// A linear layer thus costs n^2 (d + d_out) rather than n^2 d d_out. Only the upper triangle is computed.
//
// The model is not changed. Layers: Linear, Bilinear, Conv and ConvTranspose in all dimensions, Embedding,
// EmbeddingBag, BatchNorm, InstanceNorm, LayerNorm, GroupNorm, PReLU, LSTM, GRU, RNN and their cells,
// MultiheadAttention, and raw parameters in matmul, mm, bmm, mv, addmm, baddbmm, addmv or einsum. Parameters may be
// tied, and layers may run several times. The g_i of a parameter is the sum over all its uses: K of two uses is K1 + K2
// and the two cross terms.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <dds/recorder.hpp>
#include <dds/signature.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

/// Where the samples are in the output of a layer, as the user says.
struct SampleDim {
  enum class Order {
    SampleMajor,    ///< entry i k + j of n k is row j of sample i: (n, k) flattened
    PositionMajor,  ///< entry j n + i of n k is row j of sample i: (k, n) flattened
  };
  std::int64_t dim = 0;  ///< the dimension that counts samples, alone or with positions folded in
  Order order = Order::SampleMajor;
};

struct PerSampleOptions {
  /// Glob patterns on the names of layers, as in RecorderOptions::layers; empty: all.
  TORCH_ARG(std::vector<std::string>, layers) = {};
  /// Where the samples are, by pattern on the layer's name. The first pattern that matches counts. It has precedence
  /// over what is known or measured of the layer.
  using SampleRule = std::pair<std::string, SampleDim>;
  TORCH_ARG(std::vector<SampleRule>, samples) = {};
  /// Factor from the captured gradients to those of the per-sample losses: n for a loss averaged over n samples.
  /// Finite, not 0. Other than 1 only for a recording of the user's own step.
  TORCH_ARG(double, scale) = 1;
  /// Temporaries take about so many bytes at most, since the work is done in blocks. Results and what was captured come
  /// on top. At least 1.
  TORCH_ARG(std::int64_t, max_bytes) = std::int64_t{32} << 20;
  /// Compare sum_i g_i of every parameter with its gradient by autograd. Where the two differ, a use was not captured
  /// (a penalty on the weights in the loss, an operator that is not known), and the parameter has
  /// Status::NotObservable. Costs the weights' part of a backward pass. Only where the library runs the model, in fp32
  /// and fp64.
  TORCH_ARG(bool, verify) = true;
  /// Run one backward pass for each sample, for the parameters whose gradients the captured factors do not give (status
  /// SamplesUnknown, NotReplayable, NotObservable). Exact for every model whose samples do not mix; n times as slow.
  /// Only where the library runs the model.
  TORCH_ARG(bool, one_by_one) = false;
};

/// What is known of one layer.
struct PerSampleLayer {
  std::string name;  ///< as in Signature::layer, without `#k`: all uses of the layer are in one
  std::string kind;
  std::vector<std::string> parameters;  ///< by their first name in named_parameters()
  StatusSet status;                     ///< with no_numbers(): there are no gradients
  std::string detail;                   ///< the reason of `status` in words
};

/// The eigenvalues of K_l.
struct GramSpectrum {
  std::string layer;
  std::int64_t samples = 0;         ///< n
  std::int64_t parameters = 0;      ///< entries of g_i: K_l has at most min(n, parameters) positive eigenvalues
  std::vector<double> eigenvalues;  ///< min(n, parameters) of them, descending; empty with Status::NonFinite
  double floor = 0;                 ///< eigenvalues at or below it are rounding noise
  StatusSet status;                 ///< NonFinite: K_l has a NaN or Inf. SolverRetried: a slower solver was needed
};

/// How the eigenvalues of K_l are computed.
enum class GramRange {
  /// Of K_l itself, in the dtype of the rows. Range 1/eps; floor = 4 sqrt(n) eps lambda_max.
  Gram,
  /// Squares of the singular values of the rows g_i, which go slab by slab through a TriangularAccumulator. Range
  /// 1/eps^2. Costs n T P + n^2 P multiplications for P entries and T positions.
  Rows,
};

/// Per-sample gradients in factored form. It keeps the captured tensors alive and computes on their device. It writes
/// g_i out only where asked to.
///
/// Names: `layer` is one of layers(), `parameter` one of named_parameters().
/// Results: in the dtype of the captured rows; in fp32 for fp16 and bf16.
/// Throws InvalidArgument for a name that does not exist, and for a layer or parameter whose status has no_numbers().
/// The message gives the reason.
class PerSampleGradients {
 public:
  std::int64_t samples() const;
  /// In the order of named_modules().
  const std::vector<PerSampleLayer>& layers() const;
  /// Parameters whose gradients can be had, in the order of named_parameters(); tied ones once.
  std::vector<std::string> parameters() const;

  /// g_i of one parameter, written out: n x its shape.
  at::Tensor gradient(const std::string& parameter) const;
  /// sum_i g_i: what .grad is after one backward pass of the summed loss.
  at::Tensor sum(const std::string& parameter) const;

  /// |g_i|^2 over the parameters of a layer: n.
  at::Tensor squared_norms(const std::string& layer) const;
  /// |g_i|^2 over parameters(): n.
  at::Tensor squared_norms() const;

  /// K_l: n x n.
  at::Tensor gram(const std::string& layer) const;

  /// The spectra of these layers (empty: of all that have gradients) in one batched solve.
  std::vector<GramSpectrum> spectra(const std::vector<std::string>& layers = {},
                                    GramRange range = GramRange::Gram) const;

  /// Made by per_sample_gradients.
  class Impl;
  explicit PerSampleGradients(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

/// Of one forward and backward pass over the data of `problem`, which the library runs itself: in eval mode, in the
/// model's own dtype, with the likelihood's per-sample losses. The caller's gradients, mode and generators are left as
/// they were.
///
/// Which rows belong to which sample is *measured*, layer by layer. A second backward pass weights the losses by
/// numbers that tell the samples apart. Any order, folding, selection or routing of rows is found. A layer that mixes
/// samples has Status::SamplesUnknown. options.samples() has precedence; where it tells of all layers, there is no
/// second pass. fp16 and bf16 are too coarse to measure: rows are then known as for a recording (below).
///
/// Throws InvalidArgument for a null likelihood, missing targets, a loss that is not of shape (n), a pattern or
/// SampleDim that does not fit, or an option that is not valid; CaptureError if rows were lost; and what `forward`
/// throws.
PerSampleGradients per_sample_gradients(const Problem& problem, const PerSampleOptions& options = {});

/// Of a step of the user's own. `captured` comes from a Recorder of this model with RecorderOptions::operators, after
/// the backward pass and before the optimiser's step. `samples` is n, at least 1.
///
/// Rows are not measured. The operator says which dimension counts samples (convolutions; batch, group and instance
/// norms; cells and recurrent layers), or the module does (torch::nn's attention and transformers take (sequence,
/// batch, feature)). A layer with a single dimension of rows has one row a sample, if it has n rows. Every other layer
/// has Status::SamplesUnknown unless options.samples() tells.
///
/// Where the forward mixes samples (batch norm in training), g_i is made of row i of the gradient of the summed loss.
/// That layer and all that ran before it have Status::Coupled.
///
/// Throws as above, and InvalidArgument if the recording was made without `operators`.
PerSampleGradients per_sample_gradients(torch::nn::Module& model, const Captured& captured, std::int64_t samples,
                                        const PerSampleOptions& options = {});

}  // namespace dds
