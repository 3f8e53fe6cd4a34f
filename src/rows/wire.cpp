#include "src/rows/wire.hpp"

#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <dds/error.hpp>
#include <limits>
#include <utility>

namespace dds {
namespace {

bool is_triangular(std::int64_t rows, std::int64_t width) { return rows > width; }

void check_factor(std::int64_t rows, std::int64_t width, double exponent, const std::vector<double>& entries) {
  const std::int64_t height = std::min(rows, width);
  // As doubles, whose product is a number whatever came.
  const double across = static_cast<double>(width);
  const double expected = is_triangular(rows, width) ? across * (across + 1) / 2 : across * static_cast<double>(height);
  if (height < 1 || expected != static_cast<double>(entries.size())) {
    throw RankError(
        fmt::format("a factor of {} rows and {} columns came with {} entries", rows, width, entries.size()));
  }
  constexpr int kLargestExponent = std::numeric_limits<double>::max_exponent;
  if (std::isfinite(exponent) && (exponent != std::rint(exponent) || std::abs(exponent) > kLargestExponent)) {
    throw RankError(fmt::format("a factor came with the exponent {}", exponent));
  }
  if (!std::all_of(entries.begin(), entries.end(), [](double entry) { return std::isfinite(entry); })) {
    throw RankError("a factor came with entries that are no numbers");
  }
}

void put(const std::optional<c10::ScalarType>& dtype, Parcel& parcel) {
  parcel.put(dtype.has_value());
  if (dtype) parcel.put(*dtype);
}

std::optional<c10::ScalarType> take_dtype(Parcel& parcel) {
  if (!parcel.take<bool>()) return std::nullopt;
  const auto dtype = parcel.take_up_to(c10::ScalarType::Undefined);
  for (const auto known : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    if (dtype == known) return dtype;
  }
  throw RankError(fmt::format("rows of type {} came, expected Double, Float, Half or BFloat16", c10::toString(dtype)));
}

// Bits that are no Status mean nothing, and do no harm.
void put(StatusSet status, Parcel& parcel) { parcel.put(std::bit_cast<std::uint32_t>(status)); }
StatusSet take_status(Parcel& parcel) { return std::bit_cast<StatusSet>(parcel.take<std::uint32_t>()); }

void put(const RankBound& bound, Parcel& parcel) {
  parcel.put(bound.rank);
  parcel.put(bound.shape);
  parcel.put(bound.adds);
  parcel.put(bound.unknown);
}

RankBound take_bound(Parcel& parcel) {
  RankBound bound{.rank = parcel.take_tally(), .shape = parcel.take_tally(), .adds = parcel.take<bool>()};
  parcel.take(bound.unknown);
  return bound;
}

/// fp64, one entry a column; undefined: none.
at::Tensor take_vector(Parcel& parcel, std::int64_t width) {
  auto vector = parcel.take<at::Tensor>();
  if (vector.defined() && (vector.dim() != 1 || vector.size(0) != width || vector.scalar_type() != at::kDouble)) {
    throw RankError(fmt::format("what is known of {} columns came as a tensor of {} entries", width, vector.numel()));
  }
  return vector;
}

/// A flag for each unit; undefined: none.
at::Tensor take_flags(Parcel& parcel) {
  auto flags = parcel.take<at::Tensor>();
  if (flags.defined() && (flags.dim() != 1 || flags.scalar_type() != at::kBool)) {
    throw RankError(fmt::format("flags of units came as a tensor of {} dimensions", flags.dim()));
  }
  return flags;
}

void put(const Surroundings& around, Parcel& parcel) {
  for (const std::string* name : {&around.taken_by, &around.read_by, &around.input_of, &around.made_by}) {
    parcel.put(*name);
  }
  parcel.put(around.read_directly);
  parcel.put(around.taps);
  parcel.put(around.pads);
  for (const at::Tensor* tensor : {&around.unfed, &around.unread, &around.gain}) parcel.put(*tensor);
}

Surroundings take_surroundings(Parcel& parcel) {
  Surroundings around;
  for (std::string* name : {&around.taken_by, &around.read_by, &around.input_of, &around.made_by}) parcel.take(*name);
  parcel.take(around.read_directly);
  around.taps = parcel.take_tally();
  parcel.take(around.pads);
  around.unfed = take_flags(parcel);
  around.unread = take_flags(parcel);
  parcel.take(around.gain);
  if (around.gain.defined() && (around.gain.dim() != 1 || !around.gain.is_floating_point())) {
    throw RankError(fmt::format("the gains of a norm came as a tensor of {} dimensions", around.gain.dim()));
  }
  return around;
}

}  // namespace

void pack(const TriangularAccumulator& accumulator, Parcel& parcel) {
  const TriangularAccumulator::Factor factor = accumulator.factor();
  const std::int64_t width = accumulator.width();
  parcel.put(accumulator.rows());
  parcel.put(width);
  parcel.put(factor.exponent.item<double>());
  const at::Tensor matrix = factor.factor.cpu().contiguous();
  const double* const from = matrix.data_ptr<double>();
  const bool triangular = is_triangular(accumulator.rows(), width);
  std::vector<double> entries;
  entries.reserve(static_cast<std::size_t>(triangular ? width * (width + 1) / 2 : matrix.numel()));
  for (std::int64_t i = 0; i < matrix.size(0); ++i) {
    entries.insert(entries.end(), from + i * width + (triangular ? i : 0), from + (i + 1) * width);
  }
  parcel.put(entries);
}

TriangularAccumulator unpack_factor(Parcel& parcel) {
  const std::int64_t rows = parcel.take_tally(), width = parcel.take_tally();
  const auto exponent = parcel.take<double>();
  const auto entries = parcel.take<std::vector<double>>();
  check_factor(rows, width, exponent, entries);
  const std::int64_t height = std::min(rows, width);
  const bool triangular = is_triangular(rows, width);
  const at::Tensor factor = at::zeros({height, width}, at::TensorOptions(at::kDouble));
  double* const into = factor.data_ptr<double>();
  auto next = entries.begin();
  for (std::int64_t i = 0; i < height; ++i) {
    const std::int64_t skipped = triangular ? i : 0;
    std::copy_n(next, width - skipped, into + i * width + skipped);
    next += width - skipped;
  }
  return TriangularAccumulator::from_factor(rows, factor, at::scalar_tensor(exponent, factor.options()));
}

void pack(const Cancellation& cancellation, Parcel& parcel) {
  const Cancellation::Parts parts = cancellation.parts();
  parcel.put(parts.known);
  parcel.put(parts.terms);
  parcel.put(parts.difference);
}

Cancellation unpack_cancellation(Parcel& parcel) {
  Cancellation::Parts parts{.known = parcel.take<bool>(), .terms = {}, .difference = {}};
  for (at::Tensor* part : {&parts.terms, &parts.difference}) {
    parcel.take(*part);
    if (part->defined() && (part->dim() != 0 || part->scalar_type() != at::kDouble)) {
      throw RankError(
          fmt::format("what cancels in a loss came with {} dimensions, expected a number of fp64", part->dim()));
    }
  }
  if (parts.terms.defined() != parts.difference.defined()) {
    throw RankError("of what cancels in a loss came one part without the other");
  }
  return Cancellation(std::move(parts));
}

void pack(const FisherLabels& labels, Parcel& parcel) {
  parcel.put(labels.kind.labels);
  parcel.put(labels.passes);
}

FisherLabels unpack_labels(Parcel& parcel) {
  const auto labels = parcel.take_up_to(FisherKind::Sampled);
  const std::int64_t passes = parcel.take_tally();
  return {FisherKind(labels, labels == FisherKind::Sampled ? passes : 0), passes};
}

void pack(const ReadingRows::Layer& layer, Parcel& parcel) {
  layer.rows.pack(parcel);
  parcel.put(layer.reduction);
  parcel.put(layer.targets);
  pack(layer.cancellation, parcel);
}

ReadingRows::Layer unpack_layer(Parcel& parcel, const SignatureOptions& options) {
  ReadingRows::Layer layer{.rows = LayerRows::unpack(parcel, options)};
  parcel.take(layer.reduction);
  layer.targets = parcel.take_tally();
  layer.cancellation = unpack_cancellation(parcel);
  return layer;
}

void LayerRows::pack(Parcel& parcel) const {
  parcel.put(layer_);
  parcel.put(kind_);
  parcel.put(ran_);
  put(missing_, parcel);
  put(around_, parcel);
  parcel.put(expanded_);
  parcel.put(backwards_);
  for (const SideRows& side : sides_) {
    put(side.dtype, parcel);
    parcel.put(side.empty);
    parcel.put(side.width);
    put(side.bound, parcel);
    parcel.put(side.calls);
    parcel.put(side.seconds);
    put(side.status, parcel);
    for (const at::Tensor* vector : {&side.ranges.low, &side.ranges.high, &side.ranges.sum, &side.mean.value})
      parcel.put(*vector);
    parcel.put(side.factor.has_value());
    if (side.factor) dds::pack(*side.factor, parcel);
  }
}

LayerRows LayerRows::unpack(Parcel& parcel, const SignatureOptions& options) {
  LayerRows layer(options);
  parcel.take(layer.layer_);
  parcel.take(layer.kind_);
  parcel.take(layer.ran_);
  layer.missing_ = take_status(parcel);
  layer.around_ = take_surroundings(parcel);
  parcel.take(layer.expanded_);
  layer.backwards_ = parcel.take_tally();
  for (SideRows& side : layer.sides_) {
    side.dtype = take_dtype(parcel);
    parcel.take(side.empty);
    side.width = parcel.take_tally();
    side.bound = take_bound(parcel);
    side.calls = parcel.take_tally();
    parcel.take(side.seconds);
    side.status = take_status(parcel);
    for (at::Tensor* vector : {&side.ranges.low, &side.ranges.high, &side.ranges.sum, &side.mean.value}) {
      *vector = take_vector(parcel, side.width);
    }
    const UnitRanges& ranges = side.ranges;
    if (ranges.low.defined() != ranges.high.defined() || ranges.low.defined() != ranges.sum.defined()) {
      throw RankError("a part of what the units' ranges are came");
    }
    if (!parcel.take<bool>()) continue;
    side.factor = unpack_factor(parcel);
    side.mean.rows = side.factor->rows();
    if (side.mean.value.defined() != options.centred()) {
      throw RankError(fmt::format("{}: rows came {} their mean", layer.layer_, options.centred() ? "without" : "with"));
    }
    if (!side.dtype || side.width != side.factor->width()) {
      throw RankError(fmt::format("{}: a factor of width {} came with a width of {} and {} type", layer.layer_,
                                  side.factor->width(), side.width, side.dtype ? "a" : "no"));
    }
  }
  return layer;
}

}  // namespace dds
