#include <ATen/ops/linalg_svd.h>

#include <algorithm>
#include <cmath>
#include <dds/spectrum.hpp>
#include <optional>

#include "src/causes/search.hpp"

namespace dds {
namespace {

/// The rank of all rows of a reading; empty: some of them were left out.
std::optional<std::int64_t> rank_of_all(const CauseEvidence& reading) {
  if (reading.signature->status.has(Status::Subsampled)) return std::nullopt;
  return reading.signature->rank;
}

/// True if a unit between these values gives the same in every row, to rounding, once `function` was taken of it.
bool is_flat(const std::string& function, double low, double high) {
  constexpr double kNothing = 1e-17;  // beside 1, which functions that saturate go to
  return low == high || largest_slope(function, low, high) * (high - low) <= kNothing;
}

using Units = std::vector<std::int64_t>;

/// The units of which a layer's input has something of its own: not the same in every row, not equal to one before, and
/// with weights. Empty: not known.
class InputUnits {
 public:
  InputUnits(const CauseEvidence& source, const Surroundings& around, const Units& unread)
      : width_(*source.signature->width) {
    const UnitRanges& ranges = source.layer->side(Side::Activation).ranges;
    if (!is_entrywise(around.made_by) || !ranges.low.defined() || !rank_of_all(source)) return;
    const at::Tensor low = ranges.low.to(at::kCPU).contiguous(), high = ranges.high.to(at::kCPU).contiguous();
    own_.assign(static_cast<std::size_t>(width_), true);
    for (std::int64_t unit = 0; unit < width_; ++unit) {
      const double least = low.data_ptr<double>()[unit], most = high.data_ptr<double>()[unit];
      const bool off = is_relu(around.made_by) && most <= 0;
      if (off || (!around.pads && is_flat(around.made_by, least, most))) own_[static_cast<std::size_t>(unit)] = false;
    }
    for (const Twin& twin : twins_of(span_of(source))) {
      if (twin.sign > 0) own_[static_cast<std::size_t>(twin.unit)] = false;
    }
    for (const std::int64_t unit : unread) {
      if (unit < width_) own_[static_cast<std::size_t>(unit)] = false;
    }
  }

  bool known() const { return !own_.empty(); }
  std::int64_t count() const { return std::count(own_.begin(), own_.end(), true); }

 private:
  std::int64_t width_;
  std::vector<bool> own_;
};

/// True if some combination of the outputs is the same, and not zero, in every row: the vector of ones lies in the
/// space of the columns. Its part there is found from the sums of the columns.
bool fills_constant(const CauseEvidence& reading) {
  const UnitRanges& ranges = reading.layer->side(Side::Activation).ranges;
  const std::int64_t rank = *reading.signature->rank;
  if (!ranges.sum.defined() || rank == 0 || reading.signature->centred) return false;
  const auto [left, sigma, right] = at::linalg_svd(reading.factor.to(at::kCPU), /*full_matrices=*/false);
  const at::Tensor sums = ranges.sum.to(at::kCPU).mul(std::ldexp(1.0, -reading.exponent));
  const at::Tensor part = right.narrow(0, 0, rank).mv(sums).div(sigma.narrow(0, 0, rank));
  constexpr double kOutside = 1e-8;  // of the squared length of the vector of ones
  return part.dot(part).item<double>() >= (1 - kOutside) * static_cast<double>(reading.rows);
}

/// The rank of what an input is made of, constant directions left out.
std::optional<std::int64_t> rank_before(const CauseSearch& search, const Units& unread) {
  const Surroundings& around = search.around();
  const CauseEvidence* const source = search.all.find(around.input_of, Side::Activation);
  if (!source || source == &search.reading || *source->signature->width > Spectrum::kMostAxes) return std::nullopt;
  if (around.made_by.empty()) {
    auto rank = rank_of_all(*source);
    if (rank && fills_constant(*source)) --*rank;
    return rank;
  }
  const InputUnits units(*source, around, unread);
  return units.known() ? std::optional(units.count()) : std::nullopt;
}

/// Features of the input that the layer has no weights for.
Units unread_inputs(const Surroundings& around) {
  Units unread;
  if (!around.unread.defined()) return unread;
  const at::Tensor flags = around.unread.to(at::kCPU).contiguous();
  for (std::int64_t i = 0; i < flags.numel(); ++i) {
    if (flags.data_ptr<bool>()[i]) unread.push_back(i);
  }
  return unread;
}

/// With a bound on the rank known, what stays without a cause is the bound less the rank. (What other causes leave out
/// lies within what the bound leaves out.)
void explain_by(CauseSearch& search, Cause cause, std::int64_t bound) {
  const std::int64_t rank = search.span.width() - search.dead;
  cause.directions = search.left - std::max<std::int64_t>(0, bound - rank);
  if (cause.directions > 0) search.explain(std::move(cause));
}

void find_lost_before(CauseSearch& search) {
  const Surroundings& around = search.around();
  const Units unread = unread_inputs(around);
  if (!unread.empty()) {
    const std::int64_t read = around.unread.numel() - std::ssize(unread);
    const bool few = std::ssize(unread) <= Spectrum::kMostAxes;  // as many as a cause may list
    explain_by(search, {.kind = CauseKind::OutgoingZero, .units = few ? unread : Units(), .layer = around.input_of},
               around.taps * read + 1);
  }
  if (search.left <= 0) return;
  if (const auto rank = rank_before(search, unread)) {
    explain_by(search, {.kind = CauseKind::Upstream, .layer = around.input_of}, around.taps * *rank + 1);
  }
}

void find_lost_behind(CauseSearch& search) {
  const Surroundings& around = search.around();
  const CauseEvidence* const reader = search.all.find(around.read_by, Side::Fisher);
  if (!around.read_directly || !reader || reader->layer->around().taps <= 0) return;
  if (const auto rank = rank_of_all(*reader)) {
    explain_by(search, {.kind = CauseKind::Downstream, .layer = around.read_by}, reader->layer->around().taps * *rank);
  }
}

}  // namespace

void find_lost_ranks(CauseSearch& search) {
  const Surroundings& around = search.around();
  if (search.left <= 0 || !rank_of_all(search.reading)) return;
  if (search.side() == Side::Fisher) {
    find_lost_behind(search);
  } else if (search.side() == Side::Activation && around.taps > 0) {
    find_lost_before(search);
  } else if (search.side() == Side::Input && around.made_by.empty()) {
    const CauseEvidence* const source = search.all.find(around.input_of, Side::Activation);
    const auto rank = source ? rank_of_all(*source) : std::nullopt;
    if (rank) explain_by(search, {.kind = CauseKind::Upstream, .layer = around.input_of}, *rank);
  }
}

}  // namespace dds
