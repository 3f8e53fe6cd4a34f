// A checkpoint read: the signatures of a model at its present weights, over a probe set.
//
//   auto signatures = dds::read({*model, dds::categorical(), probe});
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <dds/signature.hpp>
#include <dds/signature_options.hpp>
#include <vector>

namespace DDS_EXPORT dds {

/// The labels that the Fisher side is read with.
enum class Fisher {
  True,       ///< labels from the model's own predictive distribution: their exact expectation where the likelihood
              ///< has one (Likelihood::fisher_terms), else draws
  Empirical,  ///< the data's labels. This Fisher dies with the residual wherever the model fits its data
};

struct ReadOptions {
  /// What the signatures are read from, and what they keep.
  TORCH_ARG(SignatureOptions, signatures) = SignatureOptions();
  /// Fisher::True with a likelihood that cannot draw labels is Fisher::Empirical, and the signature says so.
  TORCH_ARG(Fisher, fisher) = Fisher::True;
  /// Draws of the labels for each sample, where labels are drawn; at least 1. Each adds its rows. (LlcOptions::draws
  /// are draws of the weights.)
  TORCH_ARG(std::int64_t, draws) = 1;
  /// Samples per forward pass, at least 1. Bounds the memory.
  TORCH_ARG(std::int64_t, batch_size) = 512;
  /// True: in fp64 copies of parameters and buffers, so that the floor is that of fp64. False: in the model's own
  /// dtype. LlcOptions::fp64 is false by default: a read resolves singular values down to the rounding of fp32, while
  /// the noise of a chain is far above it.
  TORCH_ARG(bool, fp64) = true;
};

/// Reads every selected layer of the model over the samples of the data (the *probe*), in eval mode.
///
/// Leaves the weights, buffers, gradients, mode and default generator of the caller as they were. Other recorders of
/// this thread do not see the passes. No other thread may train the model meanwhile.
///
/// Input: at least one sample. Every position counts in the true Fisher, also one that the data's targets mask, so
/// leave padding out of the probe. Result: a signature for each layer and side. What is no ordinary reading (a layer
/// that did not run, NaN or Inf) has a status. A forward that builds tensors of its own dtype is read in the model's
/// own (Status::Fp64Unavailable). Error: read_spectra's on the singular values of the rows; what rounding put into the
/// rows is below Signature::floor. Throws InvalidArgument for a model without parameters, a null likelihood, an empty
/// forward, an empty probe, a pattern that matches no layer, targets that are missing where the empirical Fisher needs
/// them, and options out of range; CaptureError if rows were lost; and what `forward` throws.
///
/// With SignatureOptions::ranks every rank calls it at once, with its own part of the probe and the same options.
/// Result: rank 0 returns the signatures of all rows together, the others none.
/// Throws on all ranks what one of them throws, as a RankError on those that had nothing to throw. A rank that is gone
/// is such an error, once the transport has waited long enough.
std::vector<Signature> read(const Problem& problem, const ReadOptions& options = {});

}  // namespace dds
