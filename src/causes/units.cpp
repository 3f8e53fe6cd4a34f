#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <optional>

#include "src/causes/search.hpp"

namespace dds {
namespace {

using Units = std::vector<std::int64_t>;

/// Units by what is wrong with them.
struct Suspect {
  CauseKind kind;
  std::string layer = {};
  auto operator<=>(const Suspect&) const = default;
};

/// fp64 or bool, one entry a unit, on the CPU; undefined where there is no such vector for this many units.
at::Tensor vector_of(const at::Tensor& tensor, std::int64_t width) {
  if (!tensor.defined() || tensor.dim() != 1 || tensor.size(0) != width) return {};
  return tensor.to(at::kCPU).contiguous();
}

bool flag(const at::Tensor& flags, std::int64_t unit) { return flags.defined() && flags.data_ptr<bool>()[unit]; }

/// What the units of a reading do.
class UnitFacts {
 public:
  explicit UnitFacts(const CauseSearch& search)
      : around_(search.around()),
        width_(search.span.width()),
        low_(vector_of(ranges(search).low, width_)),
        high_(vector_of(ranges(search).high, width_)),
        unfed_(search.side() == Side::Activation ? vector_of(around_.unfed, width_) : at::Tensor()) {
    if (search.side() != Side::Fisher) return;
    const CauseEvidence* const reader = search.all.find(around_.read_by, Side::Fisher);
    if (!reader) return;
    unread_ = vector_of(reader->layer->around().unread, width_);
    const bool by_unit = around_.read_directly && reader->layer->kind().find("Norm") != std::string::npos &&
                         reader->layer->kind() != "LayerNorm" && reader->signature->width == width_;
    if (!by_unit) return;
    for (const Cause& cause : reader->signature->causes) {
      if (is_by_architecture(cause.kind) || cause.kind > CauseKind::OutgoingZero) continue;
      for (const std::int64_t unit : cause.units) dead_behind_.emplace(unit, around_.read_by);
    }
  }

  bool ranged() const { return low_.defined() && high_.defined(); }
  double low(std::int64_t unit) const { return low_.data_ptr<double>()[unit]; }
  double high(std::int64_t unit) const { return high_.data_ptr<double>()[unit]; }
  bool constant(std::int64_t unit) const { return ranged() && low(unit) == high(unit); }
  bool unfed(std::int64_t unit) const { return flag(unfed_, unit); }

  /// Why no gradient arrives at a unit.
  std::optional<Suspect> silence(std::int64_t unit) const {
    if (ranged() && is_relu(around_.taken_by) && high(unit) <= 0) return Suspect{CauseKind::ReluOff};
    constexpr double kFlat = 1e-6;
    if (ranged() && largest_slope(around_.taken_by, low(unit), high(unit)) <= kFlat) {
      return Suspect{CauseKind::Saturated};
    }
    if (flag(unread_, unit)) return Suspect{CauseKind::OutgoingZero};
    const auto behind = dead_behind_.find(unit);
    if (behind != dead_behind_.end()) return Suspect{CauseKind::Downstream, behind->second};
    return std::nullopt;
  }
  /// Why a unit is zero in every row of an output or input.
  std::optional<Suspect> zero(std::int64_t unit, Side side) const {
    if (!constant(unit) || low(unit) != 0) return std::nullopt;
    if (unfed(unit)) return Suspect{CauseKind::IncomingZero};
    if (side == Side::Input && is_relu(around_.made_by)) return Suspect{CauseKind::ReluOff};
    return Suspect{CauseKind::Zero};
  }

 private:
  static UnitRanges ranges(const CauseSearch& search) {
    return search.side() == Side::Input ? search.reading.layer->side(Side::Input).ranges : search.output_ranges();
  }

  const Surroundings& around_;
  std::int64_t width_;
  at::Tensor low_, high_, unfed_, unread_;
  std::map<std::int64_t, std::string> dead_behind_;  ///< units of a norm that reads them one by one
};

/// Constant units, not zero: all but one of them are dead, and of rows less their mean all.
void explain_constants(CauseSearch& search, const UnitFacts& facts, const Units& units) {
  if (units.empty()) return;
  const bool all_unfed = std::all_of(units.begin(), units.end(), [&](std::int64_t unit) { return facts.unfed(unit); });
  Cause cause{.kind = all_unfed ? CauseKind::IncomingZero : CauseKind::Constant};
  if (search.reading.signature->centred) {
    if (search.span.take_units(units, search.left, cause)) search.explain(std::move(cause));
    return;
  }
  const std::int64_t pairs = std::ssize(units) - 1;
  const at::Tensor vectors = at::zeros({pairs, search.span.width()}, search.span.factor().options());
  for (std::int64_t i = 0; i < pairs; ++i) {
    double* const row = vectors.data_ptr<double>() + i * search.span.width();
    row[units[0]] = facts.high(units[static_cast<std::size_t>(i) + 1]);
    row[units[static_cast<std::size_t>(i) + 1]] = -facts.high(units[0]);
  }
  cause.units = units;
  if (search.span.take(vectors, search.left, cause)) search.explain(std::move(cause));
}

}  // namespace

void find_units(CauseSearch& search) {
  const UnitFacts facts(search);
  const std::vector<double>& norms = search.span.column_norms();
  std::map<Suspect, Units> found;
  for (std::int64_t unit = 0; unit < std::ssize(norms); ++unit) {
    const bool dead = norms[static_cast<std::size_t>(unit)] <= search.span.floor();
    if (search.side() == Side::Fisher) {
      if (!dead) continue;
      const std::optional<Suspect> why = facts.silence(unit);
      why ? found[*why].push_back(unit) : search.silent.push_back(unit);
    } else if (const std::optional<Suspect> why = facts.zero(unit, search.side())) {
      if (dead) found[*why].push_back(unit);
    } else if (facts.constant(unit)) {
      search.constants.push_back(unit);
    }
  }
  for (auto& [suspect, units] : found) {
    Cause cause{.kind = suspect.kind, .layer = suspect.layer};
    if (search.span.take_units(std::move(units), search.left, cause)) search.explain(std::move(cause));
  }
  explain_constants(search, facts, search.constants);
}

}  // namespace dds
