// A signature: what is read from one layer, on one side, at one step. The way of a reading:
//
//   rows M (n x d)  ->  triangular factor R  ->  singular values sigma_1 >= ... >= sigma_min(n,d)  ->  Signature
//
// M holds the rows of the layer's output X (Side::Activation), of its input (Side::Input) or of the per-sample gradient
// delta_i = d l_i / d s_i at its output (Side::Fisher). The eigenvalues spoken of are those of (1/n) M^T M, on every
// side: lambda_i = sigma_i^2 / n; for Side::Fisher that matrix is the Fisher-Gram G (arXiv:2606.21158).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <compare>
#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

/// The matrix that a signature was read from.
enum class Side {
  Activation,  ///< the layer's output, one row per sample or position
  Input,       ///< the layer's input
  Fisher,      ///< the per-sample gradient at the layer's output: the spectrum of the Fisher-Gram G
};

/// Where a signature was read.
enum class Source {
  Read,  ///< "read": at a checkpoint, over a probe set
  Step,  ///< "step": inside a training step, over its batch
};

/// The labels whose gradients are the rows of Side::Fisher.
struct FisherKind {
  enum Labels {
    Empirical,  ///< "empirical": the data's labels
    Exact,      ///< "exact": the expectation over the model's own predictive distribution
    Sampled,    ///< "sampled:K": K draws a sample from that distribution
  };
  constexpr FisherKind(Labels which = Exact, std::int64_t number_of_draws = 0)
      : labels(which), draws(number_of_draws) {}
  friend constexpr auto operator<=>(const FisherKind&, const FisherKind&) = default;

  Labels labels;
  std::int64_t draws;  ///< K for Sampled, else 0
};

/// What a row is.
enum class RowMode {
  Sample,  ///< "sample": a sample
  Expand,  ///< "expand": a sample and a position
};

/// The text that the log has for a value: "activation", "read", "sampled:4", "expand".
std::string_view to_string(Side side);
std::string_view to_string(Source source);
std::string_view to_string(RowMode mode);
std::string to_string(FisherKind kind);

/// The inverses of to_string. Each throws InvalidArgument for any other text.
Side side_from_string(std::string_view text);
Source source_from_string(std::string_view text);
RowMode row_mode_from_string(std::string_view text);
FisherKind fisher_kind_from_string(std::string_view text);
/// The dtype of rows, as c10::toString names it: "Float", "Double", "Half" or "BFloat16".
c10::ScalarType dtype_from_string(std::string_view text);

/// Why a reading is not an ordinary one. A signature carries any number of these; none at all is the good case.
enum class Status : std::uint32_t {
  NonFinite = 1u << 0,        ///< a NaN or Inf among the rows: no numbers
  NotRun = 1u << 1,           ///< the layer did not run in this step: no numbers
  NotObservable = 1u << 2,    ///< the layer ran only through operators that the recorder does not know: no numbers
  NoGradient = 1u << 3,       ///< the output takes no part in a backward pass: no Fisher side
  Overwritten = 1u << 4,      ///< the captured tensor was changed in place before it was read: no numbers
  Zero = 1u << 5,             ///< every entry of every row is zero: rank 0 and no positive eigenvalue
  Subsampled = 1u << 6,       ///< more rows than the budget: a seeded subset was read
  TooWide = 1u << 7,          ///< wider than the cap on the width: no numbers
  Fp64Unavailable = 1u << 8,  ///< the forward builds tensors of its own dtype: read in the model's dtype
  Coupled =
      1u << 9,  ///< the forward couples the samples (batch norm in training): delta_i is the row of the summed loss
  ReductionUnknown = 1u << 10,   ///< Reduction::Mean, and no loss operator told over how many samples: no Fisher side
  ReductionMismatch = 1u << 11,  ///< the loss operator that ran reduces otherwise than the option says: no Fisher side
  ShapeChanged = 1u << 12,       ///< calls of one layer gave rows of different width: no numbers
  CaptureFailed = 1u << 13,      ///< an error while capturing: no numbers; the message surfaces from the next call
  SolverRetried = 1u << 14,      ///< the device's SVD did not converge; the numbers are those of a slower, safer one
  LossUnknown = 1u << 15,  ///< Fisher side: no loss that the library knows, so the floor leaves out what cancels in it
  BelowFloor = 1u << 16,   ///< no singular value is above the floor, and not all are zero: rank 0 of noise
  Empty = 1u << 17,        ///< the layer ran on no samples, or has no features: no numbers
  SamplesUnknown = 1u << 18,  ///< which rows belong to which sample is not known: no per-sample gradients
  NotReplayable = 1u << 19,   ///< what ran cannot be computed again from what was captured: dropout in a recurrence
};

/// A set of Status.
class StatusSet {
 public:
  constexpr StatusSet() = default;
  constexpr StatusSet(Status status) : bits_(static_cast<std::uint32_t>(status)) {}
  constexpr StatusSet& operator|=(StatusSet other) {
    bits_ |= other.bits_;
    return *this;
  }
  friend constexpr StatusSet operator|(StatusSet a, StatusSet b) { return a |= b; }
  friend constexpr bool operator==(StatusSet, StatusSet) = default;
  constexpr bool has(Status status) const { return (bits_ & static_cast<std::uint32_t>(status)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  /// True if any member means that the signature has no numbers.
  bool no_numbers() const;

 private:
  std::uint32_t bits_ = 0;
};

/// "ok", or the members' snake_case names joined by '+', such as "subsampled+coupled".
std::string to_string(StatusSet status);
/// The inverse. Throws InvalidArgument for a name that is none.
StatusSet status_from_string(std::string_view text);

/// One reading. A number that does not exist is empty: never NaN, 0 or infinite. Why it does not exist is in `status`.
/// Eigenvalues are kept as logarithms, since sigma^2 leaves the range of double.
struct Signature {
  std::int64_t step = 0;  ///< training step that it belongs to
  std::string layer;      ///< as named_modules() names it; a raw parameter's full name; `name#2` for a further site
  std::string kind;       ///< what ran: "Linear", "Conv2d", "Embedding", ..., "Raw" for a raw parameter, "Tap"
  Side side = Side::Activation;
  Source source = Source::Read;
  std::optional<FisherKind> fisher_kind;  ///< Side::Fisher only
  std::string reduction;  ///< Side::Fisher: how delta was put back to the per-sample loss: "sum", "mean:N", "scale:S"
  std::optional<RowMode> row_mode;       ///< empty: no rows
  std::optional<c10::ScalarType> dtype;  ///< of the captured rows

  std::int64_t calls = 0;             ///< times that the layer ran in this reading
  std::int64_t backwards = 0;         ///< times that a backward pass came through it
  std::optional<std::int64_t> rows;   ///< n, the divisor in lambda = sigma^2 / n: samples, or samples times positions
  std::optional<std::int64_t> width;  ///< d

  std::optional<double> sigma_max;              ///< largest singular value of the raw rows
  std::optional<double> sigma_min;              ///< smallest of the min(n, d) singular values
  std::optional<double> sigma_min_plus;         ///< smallest singular value above the floor
  std::optional<double> log10_lambda_min_plus;  ///< log10 of sigma_min_plus^2 / n: the rate observable
  std::optional<double> log10_trace;            ///< log10 of tr((1/n) M^T M)
  /// log det+, the volume observable: the natural logarithms of the first `rank` eigenvalues, summed.
  std::optional<double> logdet_plus;
  std::optional<std::int64_t> rank;         ///< numerical rank: the number of singular values above the floor
  std::optional<std::int64_t> fixed_rank;   ///< the rank that logdet_fixed_rank is taken over, whatever the floor says
  std::optional<double> logdet_fixed_rank;  ///< natural logarithms of the first fixed_rank eigenvalues, summed
  std::optional<std::int64_t> structural_bound;  ///< the rank cannot be larger, by the shapes of the network
  std::optional<std::int64_t> dead_directions;   ///< structural_bound - rank
  /// Dimensions of the row space that died, and that came to life, since the last reading of the series. Only a Monitor
  /// that reads dead axes fills them in (DeadAxesTracker). They are counted against the width, not the bound.
  std::optional<std::int64_t> born, revived;
  std::optional<double> floor;           ///< singular values at or below are rounding noise of `dtype`
  std::optional<double> cancellation;    ///< Side::Fisher: the factor in the floor for what cancels in the loss
  std::optional<bool> at_floor;          ///< sigma_min is at or below the floor
  std::optional<double> condition;       ///< sigma_max / sigma_min_plus
  std::optional<double> effective_rank;  ///< exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007)
  std::optional<double> stable_rank;     ///< sum sigma^2 / sigma_max^2

  StatusSet status;
  double seconds = 0;  ///< time that the spectral work of this reading took

  std::vector<double> spectrum;  ///< on request: all min(n, d) singular values, descending
  /// On request: the right singular vectors at or below the floor, as orthonormal rows. (width - rank) x width, fp64,
  /// on the CPU.
  at::Tensor dead_axes;

  /// True if there is a spectrum behind it: rank, sigma_max, floor and at_floor are there.
  bool has_numbers() const { return rank.has_value(); }
  /// logdet_plus / rank: the mean of ln lambda over the positive eigenvalues.
  std::optional<double> volume_per_dimension() const;
  /// log10(lambda_min+ / trace): what a falling loss scales everywhere is taken out.
  std::optional<double> log10_lambda_share() const;
};

/// What the readings of one series have in common. A series never mixes sources or kinds of Fisher.
struct SeriesId {
  std::string layer;
  Side side = Side::Activation;
  Source source = Source::Read;
  std::optional<FisherKind> fisher_kind;

  friend auto operator<=>(const SeriesId&, const SeriesId&) = default;
};
SeriesId series_of(const Signature& signature);
/// "fc1, fisher side (read, exact)".
std::string to_string(const SeriesId& series);

}  // namespace dds
