// The rows of one reading, of a training step or of a checkpoint, on their way to its signatures.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "src/model/cancellation.hpp"
#include "src/rows/layer_rows.hpp"

namespace dds {

/// The labels that the losses were taken with, whose gradients are the rows of the Fisher side.
struct FisherLabels {
  FisherKind kind = FisherKind::Empirical;
  std::int64_t passes = 1;  ///< backward passes through each batch: the terms of the expectation, or the draws

  /// Rows that make up the expectation of one.
  std::int64_t terms() const { return kind.labels == FisherKind::Exact ? passes : 1; }

  friend bool operator==(const FisherLabels&, const FisherLabels&) = default;
};

struct ReadingRows {
  struct Layer {
    LayerRows rows;
    std::string reduction = {};      ///< how the losses were reduced, for the record; empty: not known
    std::int64_t targets = 0;        ///< over how many the mean was taken; 0: there is no mean, or nobody knows
    Cancellation cancellation = {};  ///< of the losses whose gradients the rows of the Fisher side are

    /// Adds what another process has of the same layer.
    void merge(const Layer& other);
  };

  std::int64_t step = 0;
  FisherLabels labels;
  std::vector<Layer> layers;
  std::exception_ptr error;  ///< the first that kept this process from a part of its rows
  bool incomplete = false;   ///< rows are missing, and it is not known of which layers

  /// The tensors that what follows will read. Another thread must be handed all of them.
  std::vector<at::Tensor> tensors() const;
  /// Null: there is none of this name.
  Layer* find(const std::string& layer);
  /// Adds a layer that another process has.
  void merge(Layer layer);

  /// Within a catch: keeps the exception, unless there is an earlier one.
  void keep_error() noexcept;
  /// The same, and rows are missing.
  void fail() noexcept;
  /// Reduces every layer, and marks those that fail (Status::CaptureFailed).
  void reduce();
  /// Adds a status to every layer.
  void mark(StatusSet status);
};

}  // namespace dds
