// Per-sample gradients of any model, written out or not, and the weight-side Gram matrix K_l of its layers.
//
// The gradient g_i of the loss l_i of sample i with respect to the parameters of a layer is made of what the recorder
// captures anyway: the layer's input a and the gradient delta at its output. A linear layer has g_i = vec(delta_i
// a_i^T) and g_i = delta_i for its bias; over positions t of a sequence or an image it is a sum,
//   g_i = sum_t vec(delta_it a_it^T),
// with the windows of its input for a, if the layer is a convolution, the pre-activations of its gates for s, if it is
// recurrent. From these factors come, without writing g_i out, the norms |g_i|, as differential privacy and data
// selection want them, and
//   K_l = (1/n) (g_i . g_j)_ij,   n x n,
// which has the non-zero eigenvalues of the layer's empirical Fisher block (1/n) sum_i g_i g_i^T. Two orders of
// contraction are there for it, and the one with fewer multiplications is taken, per layer:
//   over positions  K_ij = (1/n) sum_tt' (a_it . a_jt' + [1 with bias]) (delta_it . delta_jt'):  n^2 T^2 (d + d_out)
//   over entries    K_ij = (1/n) <A_i^T D_i, A_j^T D_j>:                                        n T d d_out + n^2 d
//   d_out
// so that a linear layer costs n^2 (d + d_out) rather than n^2 d d_out. Only the upper triangle is computed.
//
// Nothing of the model is replaced. Layers: Linear, Bilinear, Conv and ConvTranspose in all dimensions, Embedding,
// EmbeddingBag, BatchNorm, InstanceNorm, LayerNorm, GroupNorm, PReLU, LSTM, GRU, RNN and their cells,
// MultiheadAttention, and raw parameters in matmul, mm, bmm, mv, addmm, baddbmm, addmv or einsum. Parameters may be
// tied, and layers run several times: a parameter's g_i is the sum over all its uses, so that K of two uses is K1 + K2
// + the two cross terms.
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

/// Where the samples are in the output of a layer: what the user says where the layer does not tell.
struct SampleDim {
  enum class Order {
    SampleMajor,    ///< of n * k entries, i k + j is row j of sample i: (n, k) flattened
    PositionMajor,  ///< j n + i is: (k, n) flattened
  };
  std::int64_t dim = 0;  ///< the dimension that counts them, alone or with positions folded in
  Order order = Order::SampleMajor;
};

struct PerSampleOptions {
  /// Glob patterns on the names of layers, as in RecorderOptions::layers; empty: all.
  TORCH_ARG(std::vector<std::string>, layers) = {};
  /// Where the samples are, by glob pattern on the layer; the first that matches counts. Goes before what is known of
  /// the layer.
  using SampleRule = std::pair<std::string, SampleDim>;
  TORCH_ARG(std::vector<SampleRule>, samples) = {};
  /// What the captured gradients are multiplied by to be those of the per-sample losses: n for a loss averaged over n
  /// samples. Only for a recording of the user's own step.
  TORCH_ARG(double, scale) = 1;
  /// Temporaries are kept below about so many bytes by working in blocks; results and what was captured come on top.
  TORCH_ARG(std::int64_t, max_bytes) = std::int64_t{32} << 20;
  /// Compare sum_i g_i of every parameter with its gradient by autograd, and give those where the two differ (a use
  /// that was not captured: a penalty on the weights in the loss, an operator that is not known) Status::NotObservable.
  /// It costs the weights' part of a backward pass. Only where the library runs the model, in fp32 and fp64.
  TORCH_ARG(bool, verify) = true;
  /// For parameters whose gradients cannot be told apart by sample from what was captured (status SamplesUnknown,
  /// NotReplayable, NotObservable): run one backward pass for each sample. Exact for every model whose samples do not
  /// mix, and n times as slow. Only where the library runs the model.
  TORCH_ARG(bool, one_by_one) = false;
};

/// What is known of one layer.
struct PerSampleLayer {
  std::string name;  ///< as in Signature::layer, without `#k`: all its uses are in one
  std::string kind;
  std::vector<std::string> parameters;  ///< by their first name in named_parameters()
  StatusSet status;                     ///< no numbers: its gradients cannot be had, and `detail` says why
  std::string detail;
};

/// The eigenvalues of K_l.
struct GramSpectrum {
  std::string layer;
  std::int64_t samples = 0;         ///< n
  std::int64_t parameters = 0;      ///< entries of g_i: K_l has at most min(n, parameters) positive eigenvalues
  std::vector<double> eigenvalues;  ///< min(n, parameters) of them, descending; empty if not finite
  double floor = 0;                 ///< eigenvalues at or below are rounding noise
  StatusSet status;                 ///< NonFinite: a NaN or Inf in K_l; SolverRetried
};

/// How the eigenvalues of K_l are computed.
enum class GramRange {
  Gram,  ///< of K_l itself, in the dtype of the rows: a range of 1/eps, floor = 4 sqrt(n) eps lambda_max
  Rows,  ///< squares of the singular values of the rows g_i, streamed in slabs of entries through
         ///< TriangularAccumulator: a range of 1/eps^2, at the price of n P r c + n^2 P multiplications for P entries
};

/// Per-sample gradients in factored form: it holds references to what was captured, computes on their device, and
/// writes g_i out only where asked. `layer` is a name in layers(), `parameter` one in named_parameters().
///
/// Tensors have the dtype of the captured rows; fp16 and bf16 are computed in fp32. Every function throws
/// InvalidArgument for a name that does not exist and for a layer or parameter whose status is no_numbers(), with
/// the reason.
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

/// Of one forward and backward pass over the data of `problem` that the library runs itself: in eval mode, in the
/// model's own dtype, with the likelihood's per-sample losses. The caller's gradients, mode and generators are left as
/// they were.
///
/// Which rows belong to which sample is *measured*, layer by layer, by a second backward pass with the losses weighted
/// by numbers that tell the samples apart: any order, folding, selection or routing of rows is found, and what mixes
/// samples has Status::SamplesUnknown. options.samples() goes before, and where it tells of all layers the second pass
/// is saved. In fp16 and bf16, which are too coarse to tell, rows are known as for a recording (below).
///
/// Throws InvalidArgument for a null likelihood, missing targets, a loss that is not of shape (n), a pattern or
/// SampleDim that does not fit, max_bytes < 1; CaptureError if rows were lost; and what `forward` throws.
PerSampleGradients per_sample_gradients(const Problem& problem, const PerSampleOptions& options = {});

/// Of a step of the user's own: `captured` by a Recorder of this model with RecorderOptions::operators, after the
/// backward pass and before the optimiser's step. `samples` is n.
///
/// Rows are not measured, but known by the operator: convolutions, batch, group and instance norms, cells and recurrent
/// layers say which dimension counts samples, torch::nn's attention and transformers take (sequence, batch, feature),
/// and a layer with a single dimension of rows has one row a sample, if it has n. Every other layer (more dimensions of
/// rows, another number of rows) has Status::SamplesUnknown until options.samples() tells. Where the forward couples
/// samples (batch norm in training), g_i is made of row i of the gradient of the summed loss, and that layer and all
/// that ran before it have Status::Coupled.
///
/// Throws as above, and if the recording was made without `operators`.
PerSampleGradients per_sample_gradients(torch::nn::Module& model, const Captured& captured, std::int64_t samples,
                                        const PerSampleOptions& options = {});

}  // namespace dds
