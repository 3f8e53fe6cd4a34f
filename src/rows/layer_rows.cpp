#include "src/rows/layer_rows.hpp"

#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/randperm.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "src/base/dtype.hpp"
#include "src/base/stopwatch.hpp"
#include "src/model/random.hpp"

namespace dds {
namespace {

/// The type with the larger rounding error: calls of one layer may differ in it (autocast).
c10::ScalarType coarser(c10::ScalarType a, c10::ScalarType b) {
  return machine_epsilon(a, "the rows of a layer") >= machine_epsilon(b, "the rows of a layer") ? a : b;
}

UnitRanges ranges_of(const at::Tensor& rows) {
  return {rows.amin(0).to(at::kDouble), rows.amax(0).to(at::kDouble), rows.sum(0, false, at::kDouble)};
}

std::int64_t rows_of(RowShare share, std::int64_t most) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(most) * share.samples / share.among));
}

}  // namespace

void UnitRanges::add(const UnitRanges& other) {
  const bool first = !low.defined();
  if (!other.low.defined()) return;
  low = first ? other.low : at::minimum(low, other.low.to(low.device()));
  high = first ? other.high : at::maximum(high, other.high.to(high.device()));
  sum = first ? other.sum : sum.add(other.sum.to(sum.device()));
}

LayerRows::LayerRows(const CapturedLayer& layer, const SignatureOptions& options)
    : layer_(layer.layer), kind_(layer.kind), options_(options), missing_(layer.status), around_(layer.around) {}

void LayerRows::mark(Side side, StatusSet status) { at(side).status |= status; }

void LayerRows::mark(StatusSet status) {
  for (SideRows& side : sides_) side.status |= status;
}

void LayerRows::add_bounds(const CapturedLayer& layer, std::int64_t gradients) {
  at(Side::Activation).bound.add(layer.output_bound);
  at(Side::Input).bound.add(layer.input_bound);
  at(Side::Fisher).bound.add(layer.gradient_bound.times(gradients));
}

void LayerRows::add_forward(const CapturedCall& call, RowShare share) {
  ran_ = true;
  expanded_ = expanded_ || call.expanded;
  if (wants(options_, Side::Activation)) {
    ++at(Side::Activation).calls;
    if (call.output_intact()) {
      add(Side::Activation, as_rows(call.output, call.output_features), {}, share);
    } else {
      mark(Side::Activation, Status::Overwritten);
    }
  }
  if (wants(options_, Side::Input) && !call.input_features.empty()) {
    ++at(Side::Input).calls;
    if (call.input_intact()) {
      add(Side::Input, as_rows(call.inputs.front(), call.input_features), {}, share);
    } else {
      mark(Side::Input, Status::Overwritten);
    }
  }
  if (wants(options_, Side::Fisher)) {
    ++at(Side::Fisher).calls;
    if (call.coupled) mark(Side::Fisher, Status::Coupled);
  }
}

void LayerRows::add_gradient(const CapturedCall& call, const at::Tensor& gradient, std::int64_t backwards,
                             const RowScale& scale, RowShare share) {
  if (!wants(options_, Side::Fisher) || !gradient.defined()) return;
  backwards_ += backwards;
  add(Side::Fisher, as_rows(gradient, call.output_features), scale, share);
}

void LayerRows::remember_draws() { remembered_ = generator_.defined() ? generator_.get_state() : at::Tensor(); }

void LayerRows::repeat_draws() {
  if (remembered_.defined()) {
    generator_.set_state(remembered_);
  } else {
    generator_ = {};
  }
}

at::Tensor LayerRows::subset(const at::Tensor& rows, std::int64_t count) {
  if (!generator_.defined()) generator_ = generator_for(rows.device(), options_.seed(), stream_of(options_));
  const at::Tensor order = at::randperm(rows.size(0), generator_, rows.options().dtype(at::kLong));
  return rows.index_select(0, order.narrow(0, 0, count));
}

void LayerRows::add(Side side, const at::Tensor& rows, const RowScale& scale, RowShare share) {
  const at::NoGradGuard no_grad;
  const Stopwatch watch;
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
  if (into.width != 0 && into.width != width) {
    into.status |= Status::ShapeChanged;
    return;
  }
  into.width = width;
  into.dtype = coarser(into.dtype.value_or(rows.scalar_type()), rows.scalar_type());
  const std::int64_t most = rows_of(share, own_max_rows(options_, width));
  const bool subsampled = rows.size(0) > most;
  if (subsampled) into.status |= Status::Subsampled;
  into.pending.push_back({subsampled ? subset(rows, most) : rows, scale, subsampled});
  into.seconds += watch.seconds();
}

void LayerRows::own() {
  const at::NoGradGuard no_grad;
  for (SideRows& side : sides_) {
    for (SideRows::Pending& pending : side.pending) {
      if (!pending.owned) pending.rows = pending.rows.detach().clone(at::MemoryFormat::Contiguous);
      pending.owned = true;
    }
  }
}

void LayerRows::reduce() {
  const at::NoGradGuard no_grad;
  for (SideRows& side : sides_) {
    const Stopwatch watch;
    const bool ranged = options_.causes() && &side != &at(Side::Fisher);
    try {
      for (const SideRows::Pending& pending : std::exchange(side.pending, {})) {
        if (!side.factor) side.factor.emplace(side.width);
        const auto& [factor, certain] = pending.scale;
        if (certain.defined() && !certain.item<bool>()) side.status |= Status::ReductionUnknown;
        const at::Tensor rows = factor.defined() ? pending.rows.to(at::kDouble).mul(factor) : pending.rows;
        if (ranged) side.ranges.add(ranges_of(rows));
        side.factor->update(options_.centred() ? centred_rows(rows, side.mean) : rows);
      }
    } catch (...) {
      side.factor.reset();  // a part of the rows is no reading
      throw;
    }
    side.seconds += watch.seconds();
  }
}

void LayerRows::merge(const LayerRows& other) {
  const at::NoGradGuard no_grad;
  ran_ = ran_ || other.ran_;
  missing_ |= other.missing_;
  expanded_ = expanded_ || other.expanded_;
  backwards_ += other.backwards_;
  for (std::size_t i = 0; i < sides_.size(); ++i) {
    const Stopwatch watch;
    SideRows& own = sides_[i];
    const SideRows& others = other.sides_[i];
    if (others.dtype) own.dtype = coarser(own.dtype.value_or(*others.dtype), *others.dtype);
    own.empty = own.empty || others.empty;
    own.bound.add(others.bound);
    if (own.width == 0 || others.width == 0 || own.width == others.width) own.ranges.add(others.ranges);
    own.calls += others.calls;
    own.status |= others.status;
    if (!others.factor) {
      // Nothing to add.
    } else if (!own.factor) {
      own.factor = others.factor;
      own.mean = others.mean;
      own.width = others.width;
    } else if (own.width != others.width) {
      own.status |= Status::ShapeChanged;
    } else if (options_.centred()) {
      own.factor = joined_centred(*own.factor, own.mean, *others.factor, others.mean);
    } else {
      own.factor->merge(others.factor->to(*own.factor->device()));
    }
    own.seconds += others.seconds + watch.seconds();
  }
}

void LayerRows::replace(Side side, SideRows rows) { at(side) = std::move(rows); }

std::vector<at::Tensor> LayerRows::tensors() const {
  std::vector<at::Tensor> all;
  for (const at::Tensor& tensor : {around_.unfed, around_.unread, around_.gain}) {
    if (tensor.defined()) all.push_back(tensor);
  }
  for (const SideRows& side : sides_) {
    for (const auto& [rows, scale, owned] : side.pending) {
      for (const at::Tensor& tensor : {rows, scale.factor, scale.certain}) {
        if (tensor.defined()) all.push_back(tensor);
      }
    }
  }
  return all;
}

}  // namespace dds
