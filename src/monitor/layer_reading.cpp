#include "src/monitor/layer_reading.hpp"

#include <ATen/ops/randperm.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <dds/spectrum.hpp>
#include <limits>
#include <utility>

#include "src/model/random.hpp"

namespace dds {
namespace {

using Clock = std::chrono::steady_clock;

/// Bound on the rank of the rows of several calls together, which may lie in different subspaces.
std::int64_t joint(std::int64_t bound, std::int64_t calls) {
  return bound > std::numeric_limits<std::int64_t>::max() / calls ? bound : bound * calls;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

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
  if (!generator_.defined()) generator_ = generator_for(rows.device(), options_.seed());
  const at::Tensor order = at::randperm(rows.size(0), generator_, rows.options().dtype(at::kLong));
  return rows.index_select(0, order.narrow(0, 0, count));
}

void LayerReading::add(Side side, const at::Tensor& rows, std::int64_t bound, const at::Tensor& scale,
                       std::int64_t max_rows) {
  const at::NoGradGuard no_grad;
  const auto start = Clock::now();
  SideRows& into = at(side);
  const std::int64_t width = rows.size(1);
  if (width == 0 || rows.size(0) == 0) return;
  if (!rows.is_floating_point()) {  // complex numbers
    into.status |= Status::NotObservable;
    return;
  }
  if (width > options_.max_width()) {
    into.status |= Status::TooWide;
    return;
  }
  if (into.factor && into.factor->width() != width) {
    into.status |= Status::ShapeChanged;
    return;
  }
  if (!into.factor) into.factor.emplace(width);
  if (!into.dtype) into.dtype = rows.scalar_type();
  into.bound = std::max(into.bound, std::min(bound, width));
  at::Tensor kept = rows;
  if (rows.size(0) > max_rows) {
    into.status |= Status::Subsampled;
    kept = subset(rows, max_rows);
  }
  into.factor->update(scale.defined() ? kept.to(at::kDouble).mul(scale) : kept);
  into.seconds += seconds_since(start);
}

Signature LayerReading::signature(Side side, Signature like, std::int64_t terms) const {
  const auto start = Clock::now();
  const SideRows& rows = at(side);
  Signature signature = std::move(like);
  signature.layer = layer_;
  signature.kind = kind_;
  signature.side = side;
  signature.row_mode = expanded_ ? "expand" : "sample";
  signature.calls = rows.calls;
  signature.backwards = side == Side::Fisher ? backwards_ : 0;
  signature.status |= rows.status;
  if (!ran_) signature.status |= missing_;
  if (!rows.factor) {
    if (!signature.status.no_numbers()) {
      // A layer that ran and has no rows on this side: token indices have no features, a frozen output no gradient.
      signature.status |= !ran_ ? Status::NotRun : side == Side::Fisher ? Status::NoGradient : Status::NotObservable;
    }
    return signature;
  }
  signature.rows = rows.factor->rows() / terms;
  signature.width = rows.factor->width();
  signature.structural_bound = rows.bound;
  if (!signature.status.no_numbers()) {
    Spectrum spectrum = read_spectrum(*rows.factor, options_.dead_axes());
    spectrum.divisor /= terms;
    if (options_.fixed_rank()) signature.fixed_rank = options_.fixed_rank()(series_of(signature));
    read_numbers(spectrum, *rows.dtype, signature);
    if (!signature.fixed_rank && signature.logdet_plus) {
      signature.fixed_rank = signature.rank;
      signature.logdet_fixed_rank = signature.logdet_plus;
    }
    if (options_.spectra() && spectrum.finite) {
      signature.spectrum = spectrum.sigma;
      for (double& sigma : signature.spectrum) sigma = std::ldexp(sigma, spectrum.exponent);
    }
    if (options_.dead_axes() && spectrum.finite) signature.dead_axes = dead_axes(spectrum, signature);
  }
  signature.seconds = rows.seconds + seconds_since(start);
  return signature;
}

}  // namespace dds
