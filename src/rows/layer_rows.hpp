// The rows of one layer: collected over calls, batches and backward passes, reduced to triangular factors, and joined
// with those of other processes. The steps need not happen on one thread.
#pragma once

#include <ATen/core/Generator.h>

#include <array>
#include <cstdint>
#include <dds/recorder.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/ranks/parcel.hpp"
#include "src/rows/centring.hpp"
#include "src/rows/signature_options.hpp"

namespace dds {

/// What rows are multiplied with: 0-d tensors, so that nothing waits for the device.
struct RowScale {
  at::Tensor factor;   ///< undefined: 1
  at::Tensor certain;  ///< false: `factor` does not fit all of the losses behind the rows; undefined: it does
};

/// The least and the largest value of each unit over the rows that were read, and its sum.
struct UnitRanges {
  at::Tensor low, high, sum;  ///< fp64, one entry a unit; undefined: not known

  /// Takes in other rows.
  void add(const UnitRanges& other);
};

/// The part of a layer's rows that one call brings, in one backward pass. So many of the most rows may be its own.
struct RowShare {
  double samples = 1;  ///< the samples of its batch over those of the reading
  double among = 1;    ///< calls and passes that share the batch's
};

/// The rows of one side of a layer.
struct SideRows {
  /// Rows that wait for LayerRows::reduce().
  struct Pending {
    at::Tensor rows;
    RowScale scale;
    bool owned;  ///< nobody else writes to them
  };
  std::vector<Pending> pending;
  std::optional<TriangularAccumulator> factor;  ///< of the rows that were reduced; empty: none were
  std::optional<c10::ScalarType> dtype;  ///< of the rows; of several types the one with the largest rounding error
  bool empty = false;                    ///< a call had no rows, or no columns
  std::int64_t width = 0;
  RankBound bound;    ///< on the rank, by the network and the probe
  UnitRanges ranges;  ///< with SignatureOptions::causes; not of Side::Fisher
  Mean mean;          ///< with SignatureOptions::centred: of the rows in `factor`, which are less this mean
  std::int64_t calls = 0;
  double seconds = 0;  ///< spent on the factor
  StatusSet status;

  /// True if `factor` has all the rows that there were, and can be read.
  bool whole() const { return factor && !status.no_numbers(); }
};

/// Collects the rows of one layer, side by side, within the bounds of `options`.
class LayerRows {
 public:
  LayerRows(const CapturedLayer& layer, const SignatureOptions& options);

  /// Adds the bounds on the ranks of the rows of one recording, in which each sample gives `gradients` independent
  /// ones.
  void add_bounds(const CapturedLayer& layer, std::int64_t gradients = 1);
  /// Adds the rows of one call to the activation and input sides: all of them, or a random subset of its share of the
  /// most that a layer may have. The rows are kept by reference until own() or reduce().
  void add_forward(const CapturedCall& call, RowShare share);
  /// Adds the gradient at the output of `call`, the sum of `backwards` passes, times `scale`, to the Fisher side.
  void add_gradient(const CapturedCall& call, const at::Tensor& gradient, std::int64_t backwards, const RowScale& scale,
                    RowShare share);
  /// Has subsets drawn once more: remember_draws() before the first term of an expectation, repeat_draws() before each
  /// further one, so that all terms are of the same rows.
  void remember_draws();
  void repeat_draws();
  /// Adds a status to one side, or to all.
  void mark(Side side, StatusSet status);
  void mark(StatusSet status);

  /// Copies the rows that wait for reduce(), so that their tensors may be written to.
  void own();
  /// Reduces the rows that wait. Marks the side with Status::ReductionUnknown where a scale is not certain.
  void reduce();
  /// Adds the rows, calls and statuses that another process has of the same layer. Both must be reduced.
  void merge(const LayerRows& other);
  /// Puts other rows in the place of those of one side.
  void replace(Side side, SideRows rows);

  /// All that it has, reduced, for another process (src/rows/wire.cpp).
  void pack(Parcel& parcel) const;
  /// What another process packed with the same options. Throws RankError for anything else.
  static LayerRows unpack(Parcel& parcel, const SignatureOptions& options);

  const std::string& layer() const { return layer_; }
  const std::string& kind() const { return kind_; }
  bool ran() const { return ran_; }
  /// What stands around it in the pass.
  const Surroundings& around() const { return around_; }
  /// What the recorder says of a layer that did not run.
  StatusSet missing() const { return missing_; }
  /// True if a row is a sample and a position, false if it is a sample.
  bool expanded() const { return expanded_; }
  std::int64_t backwards() const { return backwards_; }
  const SideRows& side(Side side) const { return sides_[static_cast<std::size_t>(side)]; }
  /// The tensors that reduce() and what follows will read: rows, their scales, what is known of weights.
  std::vector<at::Tensor> tensors() const;

 private:
  explicit LayerRows(const SignatureOptions& options) : options_(options) {}

  SideRows& at(Side side) { return sides_[static_cast<std::size_t>(side)]; }
  void add(Side side, const at::Tensor& rows, const RowScale& scale, RowShare share);
  at::Tensor subset(const at::Tensor& rows, std::int64_t count);

  std::string layer_;
  std::string kind_;
  SignatureOptions options_;
  bool ran_ = false;
  StatusSet missing_;
  Surroundings around_;
  bool expanded_ = false;
  std::int64_t backwards_ = 0;
  std::array<SideRows, 3> sides_;
  at::Generator generator_;  ///< undefined until a subset is drawn
  at::Tensor remembered_;    ///< its state; undefined: that of a new one
};

}  // namespace dds
