// A checkpoint read: the signatures of a model at its present weights, over a probe (a set of samples).
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

/// The labels of the Fisher side.
enum class Fisher {
  True,       ///< labels from the model's own predictive distribution: the exact expectation where the likelihood has
              ///< one (Likelihood::fisher_terms), else draws
  Empirical,  ///< the data's labels. Where the model fits its data, this Fisher vanishes with the residual
};

struct ReadOptions {
  /// What the signatures are read from, and what they keep.
  TORCH_ARG(SignatureOptions, signatures) = SignatureOptions();
  /// If the likelihood cannot draw labels, Fisher::True falls back to Fisher::Empirical: see Signature::fisher_kind.
  TORCH_ARG(Fisher, fisher) = Fisher::True;
  /// Draws of the labels per sample, where labels are drawn. At least 1. Each draw adds its own rows.
  /// (LlcOptions::draws counts draws of the weights.)
  TORCH_ARG(std::int64_t, draws) = 1;
  /// Samples per forward pass, which bounds the memory. At least 1.
  TORCH_ARG(std::int64_t, batch_size) = 512;
  /// True: run fp64 copies of parameters and buffers, so the floor is that of fp64. False: run in the model's own
  /// dtype. (LlcOptions::fp64 is false by default: the noise of a chain is far above the rounding of fp32, while a read
  /// resolves singular values below it.)
  TORCH_ARG(bool, fp64) = true;
};

/// Reads every selected layer of the model over the samples of the data (the *probe*), in eval mode.
///
/// The model's weights, buffers, gradients and mode, and the default generator, are left as they were. Other recorders
/// of this thread do not see the passes. No other thread may train the model meanwhile.
///
/// Input: at least one sample. Leave padding out of the probe: in the true Fisher every position counts, even one that
/// the data's targets mask.
/// Result: a signature for each layer and side. A reading that is not ordinary (the layer did not run, NaN or Inf) has
/// a status. If the forward builds tensors of its own dtype, the model is read in its own dtype
/// (Status::Fp64Unavailable).
/// Error: that of read_spectra on the singular values of the rows. The rounding in the rows themselves is below
/// Signature::floor.
/// Throws InvalidArgument for a model without parameters, a null likelihood, an empty forward, an empty probe, a
/// pattern that matches no layer, missing targets where the empirical Fisher needs them, and options out of range.
/// Throws it also for a NaN or infinity of the probe that reaches a network whose parameters are finite, and where a
/// Fisher side is read for targets that do not fit the output (Likelihood::check_targets), even if it is the true
/// Fisher, which does not use them. Throws CaptureError if rows were lost, and what `forward` throws.
///
/// With SignatureOptions::ranks every rank calls it at once, with its own part of the probe and the same options.
/// Result: rank 0 returns the signatures of all rows together; the others return none.
/// Throws on all ranks if one of them throws: ranks without an error of their own throw a RankError. A lost rank
/// is such an error too, after the transport's time-out at the latest.
std::vector<Signature> read(const Problem& problem, const ReadOptions& options = {});

}  // namespace dds
