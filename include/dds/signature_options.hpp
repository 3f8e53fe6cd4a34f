// The options that a checkpoint read and a Monitor share: what signatures are read from, and what they keep.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/patterns.hpp>
#include <dds/ranks.hpp>
#include <dds/signature.hpp>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

class SignatureOptions {
 public:
  /// The names of the layers to read, as RecorderOptions::layers. All: every layer and tap, but in Monitor::read the
  /// monitor's own selection.
  TORCH_ARG(Patterns, layers) = std::nullopt;
  /// The sides to read. At least one.
  TORCH_ARG(std::vector<Side>, sides) = {Side::Activation, Side::Fisher};
  /// Keep every singular value in Signature::spectrum.
  TORCH_ARG(bool, spectra) = false;
  /// Keep the right singular vectors at or below the floor in Signature::dead_axes: width - rank of them.
  /// Signature::dead_directions = structural_bound - rank can be smaller: it leaves out the axes that are dead by the
  /// shapes of the network alone. Of a layer wider than Spectrum::kMostAxes only the vectors of the min(rows, width)
  /// singular values are kept, in Signature::axes: the dead axes are what is orthogonal to the first `rank` of them.
  /// A Monitor then also follows the axes over the training (DeadAxesTracker), and fills in Signature::born and
  /// Signature::revived. All right singular vectors are in Signature::axes: with `spectra`, Monitor::decay_counts
  /// follows directions by them. For layers of more than a few hundred columns use a Worker.
  TORCH_ARG(bool, dead_axes) = false;

  /// Name the causes of dead directions (<dds/causes.hpp>): Signature::causes and the counts beside it. Units that are
  /// off or saturated are told only where Side::Activation is among the sides.
  TORCH_ARG(bool, causes) = true;

  /// Read rows less the mean over all rows of the reading, so that eigenvalues are those of the covariance. A direction
  /// along which all rows are the same is then dead. The mean is taken exactly, over batches, ranks and windows.
  TORCH_ARG(bool, centred) = false;

  /// The most rows of one layer and side in one reading. At least 1. If there are more, a seeded random subset is read
  /// (Status::Subsampled).
  TORCH_ARG(std::int64_t, max_rows) = 65536;
  /// The most columns of a triangular factor. At least 1. Of a wider layer at most so many rows are read, as of
  /// max_rows: they are their own factor, and there are no more singular values than rows. So a reading takes at most
  /// some 8 max_width width bytes and 2 max_width^2 width operations. MonitorOptions::window multiplies the rows.
  TORCH_ARG(std::int64_t, max_width) = 2048;
  /// Seed of the random subset of rows, and of labels that are drawn.
  TORCH_ARG(std::uint64_t, seed) = 0;

  /// Gives Signature::fixed_rank of a series: the number of eigenvalues in the fixed-rank volume (logdet_fixed_rank).
  /// If it is null or returns nothing, a Monitor takes the rank of the first reading of the series, and `read` takes
  /// the rank of the reading itself.
  TORCH_ARG(std::function<std::optional<std::int64_t>(const SeriesId& series)>, fixed_rank) = nullptr;

  /// The processes whose rows are read together. Null: this process alone, or in Monitor::read the monitor's ranks.
  /// Each process has its own copy of the model and its own rows. All must read at the same steps. `max_rows` then
  /// bounds the rows of all of them together: each keeps its part.
  TORCH_ARG(RanksPtr, ranks) = nullptr;
};

}  // namespace dds
