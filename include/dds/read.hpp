// A checkpoint read: signatures of a model at its present weights over a probe set, in fp64, with the true Fisher.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <dds/ranks.hpp>
#include <dds/signature.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace DDS_EXPORT dds {

/// What is read, and within which bounds. Shared by `read` and Monitor.
struct ReadingOptions {
  /// Glob patterns on the names of layers; empty: all. "tap:NAME" selects taps (RecorderOptions::layers).
  TORCH_ARG(std::vector<std::string>, layers) = {};
  TORCH_ARG(std::vector<Side>, sides) = {Side::Activation, Side::Fisher};
  /// Keep every singular value in Signature::spectrum.
  TORCH_ARG(bool, spectra) = false;
  /// Keep the right singular vectors at the floor in Signature::dead_axes. A Monitor then follows them too:
  /// Signature::born and revived, and a finding in the report; beyond a few hundred columns that is work for its
  /// worker.
  TORCH_ARG(bool, dead_axes) = false;
  /// Rows of one layer and side that go into one reading; of more, a seeded random subset (Status::Subsampled).
  TORCH_ARG(std::int64_t, max_rows) = 65536;
  /// A wider layer has no numbers (Status::TooWide): its factor would need width^2 doubles several times over.
  TORCH_ARG(std::int64_t, max_width) = 2048;
  /// Rank that the fixed-rank volume of a series is taken over; unset or empty: the rank of this very reading. A
  /// Monitor sets it to the rank at the series' first reading.
  TORCH_ARG(std::function<std::optional<std::int64_t>(const SeriesId& series)>, fixed_rank) = nullptr;
  TORCH_ARG(std::uint64_t, seed) = 0;
  /// Processes whose rows are read together, each with a model of its own and rows that no other one has; null: this
  /// one alone. All must read at the same steps. `max_rows` is then the bound for all of them, and each keeps its part.
  TORCH_ARG(RanksPtr, ranks) = nullptr;
};

/// The labels that the Fisher side is read with.
enum class Fisher {
  True,  ///< labels from the model's own predictive distribution: exact expectation where the likelihood has one, else
         ///< drawn
  Empirical,  ///< the data's labels; it dies with the residual wherever the model fits
};

struct ReadOptions {
  TORCH_ARG(ReadingOptions, reading) = ReadingOptions();
  TORCH_ARG(Fisher, fisher) = Fisher::True;
  /// Draws of the labels where they are drawn; each adds its rows. (LlcOptions::draws are draws of the weights.)
  TORCH_ARG(std::int64_t, draws) = 1;
  /// Samples per forward pass: bounds the memory.
  TORCH_ARG(std::int64_t, batch_size) = 512;
  /// Read in fp64 copies of parameters and buffers, the default; false: in the model's own dtype. (LlcOptions::fp64 is
  /// false by default: a chain's own noise is far above the rounding that a reading resolves.)
  TORCH_ARG(bool, fp64) = true;
};

/// Reads every selected layer of the model over the samples of the data (the *probe*), in eval mode. With a likelihood
/// that cannot draw labels the Fisher side is empirical, and says so. The caller's weights, buffers, gradients, mode
/// and default generator are left as they were, and other recorders of this thread do not see the passes. Not while
/// another thread trains the model.
///
/// Every position counts in the true Fisher, also one that the data's targets mask: leave padding out of the probe.
/// A layer that did not run, NaN or Inf, and what else is no ordinary reading, comes as a status in its signature. A
/// forward that builds tensors of its own dtype is read in the model's (Status::Fp64Unavailable). Throws
/// InvalidArgument for a model without parameters, an empty probe, a pattern that matches nothing, targets that are
/// missing where the empirical Fisher needs them, options out of range; CaptureError if rows were lost; and what
/// `forward` throws.
///
/// With ReadingOptions::ranks every rank calls it at once, with its own part of the probe and the same options. Rank 0
/// returns the signatures of all rows together, the others none. What one rank throws ends the call on all of them,
/// with a RankError on those that had nothing to throw; so does a rank that is gone, once the transport has waited long
/// enough.
std::vector<Signature> read(const Problem& problem, const ReadOptions& options = {});

}  // namespace dds
