// A signature: the numbers read from one layer, on one side, at one step (arXiv:2606.21158). A reading goes
//
//   rows M (n x d)  ->  triangular factor R  ->  singular values sigma_1 >= ... >= sigma_min(n,d)  ->  Signature
//
// The rows of M are the layer's output X (Side::Activation), its input (Side::Input), or the per-sample gradient
// delta_i = d l_i / d s_i at its output s_i (Side::Fisher). On every side, eigenvalues are those of (1/n) M^T M:
//   lambda_j = sigma_j^2 / n.
// For Side::Fisher that matrix is the Fisher-Gram G.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <compare>
#include <cstdint>
#include <dds/causes.hpp>
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

/// The labels in the loss whose gradients are the rows of Side::Fisher.
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
  Sample,  ///< "sample": one sample
  Expand,  ///< "expand": one position of one sample
};

/// The text of a value in the log: "activation", "read", "sampled:4", "expand".
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

/// Why a reading is not ordinary. A signature has a set of these. The empty set is the good case.
enum class Status : std::uint32_t {
  NonFinite = 1u << 0,        ///< a NaN or Inf among the rows: no numbers
  NotRun = 1u << 1,           ///< the layer did not run in this step: no numbers
  NotObservable = 1u << 2,    ///< the layer ran only through operators that the recorder does not know: no numbers
  NoGradient = 1u << 3,       ///< no backward pass reached the output: no Fisher side
  Overwritten = 1u << 4,      ///< the captured tensor was changed in place before it was read: no numbers
  Zero = 1u << 5,             ///< every entry of every row is zero: rank 0 and no positive eigenvalue
  Subsampled = 1u << 6,       ///< more rows than SignatureOptions allows: a seeded random subset was read
  TooWide = 1u << 7,          ///< in logs from before wide layers were read: no numbers
  Fp64Unavailable = 1u << 8,  ///< the forward builds tensors of its own dtype: read in the model's dtype
  Coupled = 1u << 9,  ///< samples mix in the forward (batch norm in training): delta_i is row i of d (sum_j l_j) / d s
  ReductionUnknown = 1u << 10,   ///< no one factor gives the samples' losses back (MonitorOptions): no Fisher side
  ReductionMismatch = 1u << 11,  ///< a loss operator does not reduce as the option says: no Fisher side
  ShapeChanged = 1u << 12,       ///< calls of one layer gave rows of different width: no numbers
  CaptureFailed = 1u << 13,      ///< an error while capturing: no numbers; the next call throws the error
  SolverRetried = 1u << 14,      ///< the device's SVD did not converge; a slower, safer one gave the numbers
  LossUnknown = 1u << 15,  ///< Fisher side: the loss is not known, so the floor leaves out cancellation in its gradient
  BelowFloor = 1u << 16,   ///< no singular value is above the floor, though not all are zero: rank 0
  Empty = 1u << 17,        ///< the layer ran on no samples, or has no features: no numbers
  SamplesUnknown = 1u << 18,  ///< it is not known which rows belong to which sample: no per-sample gradients
  NotReplayable = 1u << 19,   ///< the captured tensors do not suffice to run the layer again: dropout in a recurrence
  BoundUnknown = 1u << 20,  ///< an operator of unknown effect may bound the rank: no structural_bound (bound_ended_by)
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
  /// True if any member means that there are no numbers.
  bool no_numbers() const;

 private:
  std::uint32_t bits_ = 0;
};

/// "ok", or the members' snake_case names joined by '+', such as "subsampled+coupled".
std::string to_string(StatusSet status);
/// The inverse. Throws InvalidArgument for an unknown name.
StatusSet status_from_string(std::string_view text);

/// One reading. A number that does not exist is empty: never NaN, 0 or infinite. `status` tells why. Eigenvalues are
/// kept as logarithms, since sigma^2 can leave the range of double.
struct Signature {
  std::int64_t step = 0;  ///< training step of the reading
  std::string layer;      ///< as named_modules() names it; a raw parameter's full name; `name#2` for a further site
  std::string kind;       ///< what ran: "Linear", "Conv2d", "Embedding", ..., "Raw" for a raw parameter, "Tap"
  Side side = Side::Activation;
  Source source = Source::Read;
  std::optional<FisherKind> fisher_kind;  ///< Side::Fisher only
  std::string reduction;  ///< Side::Fisher: how delta was rescaled to the per-sample loss: "sum", "mean:N", "scale:S"
  std::optional<RowMode> row_mode;       ///< empty: no rows
  std::optional<c10::ScalarType> dtype;  ///< of the captured rows

  bool centred = false;  ///< the rows are less their mean (SignatureOptions::centred)

  std::int64_t calls = 0;             ///< number of runs of the layer in this reading
  std::int64_t backwards = 0;         ///< number of backward passes through it
  std::optional<std::int64_t> rows;   ///< n, the divisor in lambda = sigma^2 / n: samples, or samples times positions
  std::optional<std::int64_t> width;  ///< d

  std::optional<double> sigma_max;              ///< largest singular value of the raw rows
  std::optional<double> sigma_min;              ///< smallest of the min(n, d) singular values
  std::optional<double> sigma_min_plus;         ///< smallest singular value above the floor
  std::optional<double> log10_lambda_min_plus;  ///< log10 of sigma_min_plus^2 / n: the rate observable
  std::optional<double> log10_trace;            ///< log10 of tr((1/n) M^T M)
  /// log det+, the volume observable: sum of the natural logarithms of the first `rank` eigenvalues.
  std::optional<double> logdet_plus;
  std::optional<std::int64_t> rank;         ///< numerical rank: the number of singular values above the floor
  std::optional<std::int64_t> fixed_rank;   ///< number of eigenvalues in logdet_fixed_rank, independent of the floor
  std::optional<double> logdet_fixed_rank;  ///< sum of the natural logarithms of the first fixed_rank eigenvalues
  /// The largest rank that the network's operators and shapes and the probe allow. Empty if that is not known.
  std::optional<std::int64_t> structural_bound;
  std::string bound_ended_by;  ///< Status::BoundUnknown: the operator whose effect on the rank is not known
  std::optional<std::int64_t> dead_directions;  ///< structural_bound - rank, at least 0; empty where there is no bound
  /// width - rank by cause, and the causes (<dds/causes.hpp>). Empty without SignatureOptions::causes, and where there
  /// is no rank.
  std::optional<std::int64_t> dead_by_architecture, dead_explained, dead_unexplained;
  std::vector<Cause> causes;
  /// Dimensions of the row space that died, and that came back to life, since the last reading of the series
  /// (DeadAxesTracker). Only a Monitor with SignatureOptions::dead_axes fills them in. They count among all `width`
  /// dimensions, not only among structural_bound.
  std::optional<std::int64_t> born, revived;
  std::optional<double> floor;         ///< singular values at or below it are rounding noise of `dtype`
  std::optional<double> cancellation;  ///< Side::Fisher: factor in the floor for cancellation in the loss (noise_floor)
  std::optional<bool> at_floor;        ///< sigma_min is at or below the floor
  std::optional<double> condition;     ///< sigma_max / sigma_min_plus
  std::optional<double> effective_rank;  ///< exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007)
  std::optional<double> stable_rank;     ///< sum sigma^2 / sigma_max^2

  StatusSet status;
  double seconds = 0;  ///< time of the spectral work of this reading

  /// With SignatureOptions::spectra: all min(n, d) singular values, descending.
  std::vector<double> spectrum;
  /// With SignatureOptions::dead_axes: the right singular vectors at or below the floor, as orthonormal rows.
  /// (width - rank) x width, fp64, CPU. Undefined where the layer is wider than Spectrum::kMostAxes.
  at::Tensor dead_axes;
  /// With SignatureOptions::dead_axes: all right singular vectors, one a row, in the order of the singular values.
  /// width x width, fp64, CPU. DecayCounter follows directions by them. Where the layer is wider than
  /// Spectrum::kMostAxes, the first min(rows, width) of them: what is orthogonal to the first `rank` is dead.
  at::Tensor axes;

  /// True if the reading has a spectrum: rank, sigma_max, floor and at_floor are not empty.
  bool has_numbers() const { return rank.has_value(); }
  /// logdet_plus / rank: the mean of ln lambda over the positive eigenvalues.
  std::optional<double> volume_per_dimension() const;
  /// log10(lambda_min+ / trace). Unlike lambda_min+, it does not change if all eigenvalues fall by one factor.
  std::optional<double> log10_lambda_share() const;
};

/// Identifies a series of readings: what they have in common. A series never mixes sources or kinds of Fisher.
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
