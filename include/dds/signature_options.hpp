// What signatures are read from, and what they keep: the options that a checkpoint read and a Monitor share.
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/export.hpp>
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
  /// Glob patterns on the names of layers. Empty: every layer and tap (Monitor::read: the monitor's own selection).
  /// With patterns given, a tap needs one of its own, "tap:NAME" (RecorderOptions::layers). No pattern at all is an
  /// error.
  const std::optional<std::vector<std::string>>& layers() const { return layers_; }
  SignatureOptions& layers(std::vector<std::string> patterns) {
    layers_ = std::move(patterns);
    return *this;
  }

  /// At least one.
  TORCH_ARG(std::vector<Side>, sides) = {Side::Activation, Side::Fisher};
  /// Keep every singular value in Signature::spectrum.
  TORCH_ARG(bool, spectra) = false;
  /// Keep the right singular vectors at the floor in Signature::dead_axes: width - rank of them.
  /// Signature::dead_directions is the smaller number structural_bound - rank: it leaves out the axes that the shapes
  /// of the network alone make dead.
  /// A Monitor then follows the axes over the training (DeadAxesTracker): Signature::born and Signature::revived, which
  /// count against the width too. Beyond a few hundred columns that is work for its Worker.
  TORCH_ARG(bool, dead_axes) = false;

  /// Rows of one layer and side that one reading may have, at least 1. Of more, a seeded random subset is read
  /// (Status::Subsampled).
  TORCH_ARG(std::int64_t, max_rows) = 65536;
  /// Columns that a layer may have, at least 1. A wider layer gets no numbers (Status::TooWide): its triangular factor
  /// would take 8 width^2 bytes several times over.
  TORCH_ARG(std::int64_t, max_width) = 2048;
  /// Of the random subset, and of labels that are drawn.
  TORCH_ARG(std::uint64_t, seed) = 0;

  /// The rank that the fixed-rank volume (Signature::logdet_fixed_rank) of a series is taken over. Where this is null
  /// or returns nothing, a Monitor takes the rank of the first reading of the series, and `read` that of this reading.
  TORCH_ARG(std::function<std::optional<std::int64_t>(const SeriesId& series)>, fixed_rank) = nullptr;

  /// The processes whose rows are read together; null: this one alone (Monitor::read: the monitor's). Each has a model
  /// of its own, and rows that no other one has. All must read at the same steps. `max_rows` is then the bound for all
  /// of them together: each keeps its part.
  TORCH_ARG(RanksPtr, ranks) = nullptr;

 private:
  std::optional<std::vector<std::string>> layers_;
};

}  // namespace dds
