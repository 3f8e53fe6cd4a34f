#include "src/reading/layer_reading.hpp"

#include <ATen/ops/randperm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <dds/error.hpp>
#include <limits>
#include <utility>

#include "src/model/random.hpp"
#include "src/spectral/solver.hpp"

namespace dds {
namespace {

using Clock = std::chrono::steady_clock;

/// Bound on the rank of the rows of several calls together, which may lie in different subspaces.
std::int64_t joint(std::int64_t bound, std::int64_t calls) {
  return bound > std::numeric_limits<std::int64_t>::max() / calls ? bound : bound * calls;
}

/// The type with the larger rounding error: calls of one layer may differ in it (autocast).
c10::ScalarType coarser(c10::ScalarType a, c10::ScalarType b) {
  return noise_floor(a, 1, 1, 1.0) >= noise_floor(b, 1, 1, 1.0) ? a : b;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::int64_t own_max_rows(const ReadingOptions& options) {
  return options.ranks() ? std::max<std::int64_t>(1, options.max_rows() / options.ranks()->size()) : options.max_rows();
}

std::uint64_t stream_of(const ReadingOptions& options) {
  return options.ranks() ? static_cast<std::uint64_t>(options.ranks()->rank()) : 0;
}

LayerReading::LayerReading(const CapturedLayer& layer, const ReadingOptions& options)
    : layer_(layer.layer), kind_(layer.kind), options_(options) {
  missing_ = layer.status;
}

bool LayerReading::wanted(Side side) const {
  return std::find(options_.sides().begin(), options_.sides().end(), side) != options_.sides().end();
}

void LayerReading::mark(Side side, StatusSet status) { at(side).status |= status; }

void LayerReading::mark(StatusSet status) {
  for (SideRows& side : sides_) side.status |= status;
}

void LayerReading::add_forward(const CapturedCall& call, std::int64_t calls, std::int64_t max_rows) {
  ran_ = true;
  expanded_ = expanded_ || call.expanded;
  if (wanted(Side::Activation)) {
    ++at(Side::Activation).calls;
    if (call.output_intact()) {
      add(Side::Activation, as_rows(call.output, call.output_features), joint(call.output_bound, calls), {}, max_rows);
    } else {
      mark(Side::Activation, Status::Overwritten);
    }
  }
  if (wanted(Side::Input) && !call.input_features.empty()) {
    ++at(Side::Input).calls;
    if (call.input_intact()) {
      const at::Tensor rows = as_rows(call.inputs.front(), call.input_features);
      add(Side::Input, rows, rows.size(1), {}, max_rows);
    } else {
      mark(Side::Input, Status::Overwritten);
    }
  }
  if (wanted(Side::Fisher)) {
    ++at(Side::Fisher).calls;
    if (call.coupled) mark(Side::Fisher, Status::Coupled);
  }
}

void LayerReading::add_gradient(const CapturedCall& call, const at::Tensor& gradient, std::int64_t backwards,
                                const at::Tensor& scale, std::int64_t calls, std::int64_t max_rows) {
  if (!wanted(Side::Fisher) || !gradient.defined()) return;
  backwards_ += backwards;
  add(Side::Fisher, as_rows(gradient, call.output_features), joint(call.gradient_bound, calls), scale, max_rows);
}

at::Tensor LayerReading::subset(const at::Tensor& rows, std::int64_t count) {
  if (!generator_.defined()) generator_ = generator_for(rows.device(), options_.seed(), stream_of(options_));
  const at::Tensor order = at::randperm(rows.size(0), generator_, rows.options().dtype(at::kLong));
  return rows.index_select(0, order.narrow(0, 0, count));
}

void LayerReading::add(Side side, const at::Tensor& rows, std::int64_t bound, const at::Tensor& scale,
                       std::int64_t max_rows) {
  const at::NoGradGuard no_grad;
  const auto start = Clock::now();
  SideRows& into = at(side);
  const std::int64_t width = rows.size(1);
  if (width == 0 || rows.size(0) == 0) {
    into.empty = true;
    return;
  }
  if (!rows.is_floating_point()) {  // complex numbers
    into.status |= Status::NotObservable;
    return;
  }
  if (width > options_.max_width()) {
    into.status |= Status::TooWide;
    return;
  }
  if (into.width != 0 && into.width != width) {
    into.status |= Status::ShapeChanged;
    return;
  }
  into.width = width;
  into.dtype = coarser(into.dtype.value_or(rows.scalar_type()), rows.scalar_type());
  into.bound = std::max(into.bound, std::min(bound, width));
  const bool subsampled = rows.size(0) > max_rows;
  if (subsampled) into.status |= Status::Subsampled;
  into.pending.push_back({subsampled ? subset(rows, max_rows) : rows, scale, subsampled});
  into.seconds += seconds_since(start);
}

void LayerReading::own() {
  const at::NoGradGuard no_grad;
  for (SideRows& side : sides_) {
    for (SideRows::Pending& pending : side.pending) {
      if (!pending.owned) pending.rows = pending.rows.detach().clone(at::MemoryFormat::Contiguous);
      pending.owned = true;
    }
  }
}

void LayerReading::reduce() {
  const at::NoGradGuard no_grad;
  for (SideRows& side : sides_) {
    const auto start = Clock::now();
    for (const SideRows::Pending& pending : std::exchange(side.pending, {})) {
      if (!side.factor) side.factor.emplace(side.width);
      side.factor->update(pending.scale.defined() ? pending.rows.to(at::kDouble).mul(pending.scale) : pending.rows);
    }
    side.seconds += seconds_since(start);
  }
}

std::vector<at::Tensor> LayerReading::pending() const {
  std::vector<at::Tensor> tensors;
  for (const SideRows& side : sides_) {
    for (const SideRows::Pending& pending : side.pending) tensors.push_back(pending.rows);
  }
  return tensors;
}

const TriangularAccumulator* LayerReading::factor(Side side) const {
  return at(side).factor ? &*at(side).factor : nullptr;
}

// ---- between processes ----

namespace {

/// A factor of more rows than columns is triangular, and only its triangle is sent.
bool is_triangular(std::int64_t rows, std::int64_t width) { return rows > width; }

void pack_factor(const TriangularAccumulator& accumulator, Parcel& parcel) {
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
  const bool triangular = is_triangular(rows, width);
  const std::int64_t height = std::min(rows, width);
  // As doubles, whose product is a number whatever came.
  const double across = static_cast<double>(width);
  const double expected = triangular ? across * (across + 1) / 2 : across * static_cast<double>(height);
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
  const at::Tensor factor = at::zeros({height, width}, at::TensorOptions(at::kDouble));
  double* const into = factor.data_ptr<double>();
  auto next = entries.begin();
  for (std::int64_t i = 0; i < height; ++i) {
    const std::int64_t skipped = triangular ? i : 0;
    std::copy_n(next, width - skipped, into + i * width + skipped);
    next += width - skipped;
  }
  constexpr std::int64_t kFirstLevelOnly = 1;
  return TriangularAccumulator::from_state({at::tensor({width, rows, kFirstLevelOnly}, at::kLong),
                                            at::zeros({0, width}, factor.options()), factor,
                                            at::scalar_tensor(exponent, factor.options())});
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

// Members that nobody knows mean nothing.
void put(StatusSet status, Parcel& parcel) { parcel.put(std::bit_cast<std::uint32_t>(status)); }
StatusSet take_status(Parcel& parcel) { return std::bit_cast<StatusSet>(parcel.take<std::uint32_t>()); }

/// The same rows on another device.
TriangularAccumulator moved(const TriangularAccumulator& accumulator, at::Device device) {
  std::vector<at::Tensor> state = accumulator.state();
  std::for_each(state.begin() + 1, state.end(), [&](at::Tensor& tensor) { tensor = tensor.to(device); });
  return TriangularAccumulator::from_state(state);
}

}  // namespace

void LayerReading::pack(Parcel& parcel) const {
  parcel.put(layer_);
  parcel.put(kind_);
  parcel.put(ran_);
  put(missing_, parcel);
  parcel.put(expanded_);
  parcel.put(backwards_);
  for (const SideRows& side : sides_) {
    put(side.dtype, parcel);
    parcel.put(side.empty);
    parcel.put(side.width);
    parcel.put(side.bound);
    parcel.put(side.calls);
    parcel.put(side.seconds);
    put(side.status, parcel);
    parcel.put(side.factor.has_value());
    if (side.factor) pack_factor(*side.factor, parcel);
  }
}

LayerReading LayerReading::unpack(Parcel& parcel, const ReadingOptions& options) {
  LayerReading reading(options);
  parcel.take(reading.layer_);
  parcel.take(reading.kind_);
  parcel.take(reading.ran_);
  reading.missing_ = take_status(parcel);
  parcel.take(reading.expanded_);
  reading.backwards_ = parcel.take_tally();
  for (SideRows& side : reading.sides_) {
    side.dtype = take_dtype(parcel);
    parcel.take(side.empty);
    side.width = parcel.take_tally();
    side.bound = parcel.take_tally();
    side.calls = parcel.take_tally();
    parcel.take(side.seconds);
    side.status = take_status(parcel);
    if (!parcel.take<bool>()) continue;
    side.factor = unpack_factor(parcel);
    if (!side.dtype || side.width != side.factor->width()) {
      throw RankError(fmt::format("{}: a factor of width {} came with a width of {} and {} type", reading.layer_,
                                  side.factor->width(), side.width, side.dtype ? "a" : "no"));
    }
  }
  return reading;
}

void LayerReading::merge(const LayerReading& other) {
  const at::NoGradGuard no_grad;
  ran_ = ran_ || other.ran_;
  missing_ |= other.missing_;
  expanded_ = expanded_ || other.expanded_;
  backwards_ += other.backwards_;
  for (std::size_t i = 0; i < sides_.size(); ++i) {
    const auto start = Clock::now();
    SideRows& own = sides_[i];
    const SideRows& others = other.sides_[i];
    if (others.dtype) own.dtype = coarser(own.dtype.value_or(*others.dtype), *others.dtype);
    own.empty = own.empty || others.empty;
    own.bound = std::max(own.bound, others.bound);
    own.calls += others.calls;
    own.status |= others.status;
    if (!others.factor) {
      // Nothing to add.
    } else if (!own.factor) {
      own.factor = others.factor;
      own.width = others.width;
    } else if (own.width != others.width) {
      own.status |= Status::ShapeChanged;
    } else {
      own.factor->merge(moved(*others.factor, *own.factor->device()));
    }
    own.seconds += others.seconds + seconds_since(start);
  }
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

void LayerReading::replace(Side side, TriangularAccumulator factor) { at(side).factor = std::move(factor); }

void SignatureBatch::add(const LayerReading& layer, Side side, Signature like, std::int64_t terms,
                         const Cancellation& cancellation) {
  const LayerReading::SideRows& rows = layer.at(side);
  Request request{&rows, std::move(like), terms, cancellation.factor()};
  Signature& signature = request.signature;
  signature.layer = layer.layer_;
  signature.kind = layer.kind_;
  signature.side = side;
  signature.calls = rows.calls;
  signature.backwards = side == Side::Fisher ? layer.backwards_ : 0;
  signature.status |= rows.status;
  if (!layer.ran_) signature.status |= layer.missing_;
  if (rows.factor) {
    signature.row_mode = layer.expanded_ ? RowMode::Expand : RowMode::Sample;
    signature.rows = rows.factor->rows() / terms;
    signature.width = rows.factor->width();
    signature.structural_bound = rows.bound;
    signature.seconds = rows.seconds;
    if (!cancellation.known() && !signature.status.no_numbers()) signature.status |= Status::LossUnknown;
  } else if (!signature.status.no_numbers()) {
    // A layer that ran and has no rows on this side: token indices have no features, a frozen output no gradient.
    signature.status |= rows.empty             ? Status::Empty
                        : !layer.ran_          ? Status::NotRun
                        : side == Side::Fisher ? Status::NoGradient
                                               : Status::NotObservable;
  }
  requests_.push_back(std::move(request));
}

void SignatureBatch::fill_in(Request& request, Spectrum spectrum) {
  Signature& signature = request.signature;
  spectrum.divisor /= request.terms;
  if (!std::isfinite(spectrum.cancellation)) {  // a NaN in the loss that did not reach this layer
    spectrum.cancellation = 1;
    signature.status |= Status::LossUnknown;
  } else if (request.cancellation.defined()) {
    signature.cancellation = spectrum.cancellation;
  }
  if (options_.fixed_rank()) signature.fixed_rank = options_.fixed_rank()(series_of(signature));
  read_numbers(spectrum, *request.rows->dtype, signature);
  if (!signature.fixed_rank && signature.logdet_plus) {
    signature.fixed_rank = signature.rank;
    signature.logdet_fixed_rank = signature.logdet_plus;
  }
  if (!spectrum.finite) return;
  if (options_.spectra()) {
    signature.spectrum = spectrum.sigma;
    for (double& sigma : signature.spectrum) sigma = std::ldexp(sigma, spectrum.exponent);
  }
  if (options_.dead_axes()) signature.dead_axes = dead_axes(spectrum, signature);
}

std::vector<Signature> SignatureBatch::read() {
  const auto start = Clock::now();
  std::vector<Request*> readable;
  std::vector<const TriangularAccumulator*> factors;
  std::vector<at::Tensor> cancellations;
  for (Request& request : requests_) {
    if (!request.rows->factor || request.signature.status.no_numbers()) continue;
    readable.push_back(&request);
    factors.push_back(&*request.rows->factor);
    cancellations.push_back(request.cancellation);
  }
  std::vector<Spectrum> spectra = read_spectra(factors, options_.dead_axes(), library_svd, cancellations);
  for (std::size_t i = 0; i < readable.size(); ++i) fill_in(*readable[i], std::move(spectra[i]));
  const double share = seconds_since(start) / static_cast<double>(std::max<std::size_t>(1, readable.size()));
  std::vector<Signature> signatures;
  for (Request* request : readable) request->signature.seconds += share;
  for (Request& request : requests_) signatures.push_back(std::move(request.signature));
  requests_.clear();
  return signatures;
}

}  // namespace dds
