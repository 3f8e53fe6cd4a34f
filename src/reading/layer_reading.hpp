// From the calls of layers to their signatures, in three steps that need not happen on one thread: rows are collected
// over calls, batches and backward passes (add_...), reduced to triangular factors (reduce), joined with those of other
// processes (merge), and the factors of all layers read at once (SignatureBatch).
#pragma once

#include <ATen/core/Generator.h>

#include <array>
#include <cstdint>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <dds/signature.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <optional>
#include <vector>

#include "src/model/cancellation.hpp"
#include "src/ranks/parcel.hpp"

namespace dds {

/// What one rank of ReadingOptions::ranks keeps of max_rows, and the stream of the seed that it draws from.
std::int64_t own_max_rows(const ReadingOptions& options);
std::uint64_t stream_of(const ReadingOptions& options);

/// Collects the rows of one layer, side by side, within the bounds of `options`.
class LayerReading {
 public:
  LayerReading(const CapturedLayer& layer, const ReadingOptions& options);

  /// Adds the rows of one call, of `calls` in this pass, to the activation and input sides, keeping at most `max_rows`.
  /// They are kept by reference until reduce() or own().
  void add_forward(const CapturedCall& call, std::int64_t calls, std::int64_t max_rows);
  /// Adds a gradient at the output of `call`, the sum of `backwards` passes, multiplied by `scale` (0-d; undefined: 1)
  /// to the Fisher side.
  void add_gradient(const CapturedCall& call, const at::Tensor& gradient, std::int64_t backwards,
                    const at::Tensor& scale, std::int64_t calls, std::int64_t max_rows);
  /// Marks one side, or all.
  void mark(Side side, StatusSet status);
  void mark(StatusSet status);

  /// Copies the rows that wait for reduce(), so that their tensors may be written to meanwhile.
  void own();
  /// Reduces the rows that wait.
  void reduce();

  /// All that it has, reduced, for another process; and what another process has, with the same options.
  void pack(Parcel& parcel) const;
  static LayerReading unpack(Parcel& parcel, const ReadingOptions& options);
  /// Adds the rows, calls and statuses of another reading of the same layer, which is reduced as this one is.
  void merge(const LayerReading& other);

  const std::string& layer() const { return layer_; }
  /// Tensors that wait for reduce().
  std::vector<at::Tensor> pending() const;
  /// Rows of one side that were reduced; null if there are none.
  const TriangularAccumulator* factor(Side side) const;
  /// True if what was reduced of one side is all that there was, and can be read.
  bool whole(Side side) const { return at(side).factor && !at(side).status.no_numbers(); }
  /// Of the rows of one side; empty if there are none.
  std::optional<c10::ScalarType> dtype(Side side) const { return at(side).dtype; }
  /// Lets other rows stand for those of one side.
  void replace(Side side, TriangularAccumulator factor);

 private:
  friend class SignatureBatch;
  explicit LayerReading(const ReadingOptions& options) : options_(options) {}

  struct SideRows {
    struct Pending {
      at::Tensor rows;
      at::Tensor scale;  ///< 0-d; undefined: 1
      bool owned;
    };
    std::vector<Pending> pending;
    std::optional<TriangularAccumulator> factor;
    std::optional<c10::ScalarType> dtype;  ///< the coarsest
    bool empty = false;                    ///< a call had no rows, or no columns
    std::int64_t width = 0;
    std::int64_t bound = 0;
    std::int64_t calls = 0;
    double seconds = 0;  ///< spent on the factor
    StatusSet status;
  };

  SideRows& at(Side side) { return sides_[static_cast<std::size_t>(side)]; }
  const SideRows& at(Side side) const { return sides_[static_cast<std::size_t>(side)]; }
  bool wanted(Side side) const;
  void add(Side side, const at::Tensor& rows, std::int64_t bound, const at::Tensor& scale, std::int64_t max_rows);
  at::Tensor subset(const at::Tensor& rows, std::int64_t count);

  std::string layer_;
  std::string kind_;
  ReadingOptions options_;
  bool ran_ = false;
  StatusSet missing_;  ///< what the recorder says of a layer that did not run
  bool expanded_ = false;
  std::int64_t backwards_ = 0;
  std::array<SideRows, 3> sides_;
  at::Generator generator_;  ///< undefined until a subset is drawn
};

void pack(const Cancellation& cancellation, Parcel& parcel);
Cancellation unpack_cancellation(Parcel& parcel);

/// Signatures that are read together: the spectra of all of them in few calls.
class SignatureBatch {
 public:
  explicit SignatureBatch(const ReadingOptions& options) : options_(options) {}

  /// Asks for the signature of one side of `layer`, which must outlive read(); `like` has what the caller knows: step,
  /// source, fisher_kind, reduction. `terms`: gradients that make up the expectation of one row (an exact Fisher has
  /// one for each class). `cancellation`: of the loss whose gradients the rows are, on the Fisher side.
  void add(const LayerReading& layer, Side side, Signature like, std::int64_t terms = 1,
           const Cancellation& cancellation = {});

  /// In the order of add().
  std::vector<Signature> read();

 private:
  struct Request {
    const LayerReading::SideRows* rows;
    Signature signature;
    std::int64_t terms;
    at::Tensor cancellation;
  };
  void fill_in(Request& request, Spectrum spectrum);

  const ReadingOptions& options_;
  std::vector<Request> requests_;
};

}  // namespace dds
