#include <fmt/format.h>

#include <array>
#include <dds/error.hpp>
#include <dds/signature.hpp>
#include <utility>

namespace dds {
namespace {

constexpr std::array<std::pair<Side, std::string_view>, 3> kSides{{
    {Side::Activation, "activation"},
    {Side::Input, "input"},
    {Side::Fisher, "fisher"},
}};

struct StatusTraits {
  Status status;
  std::string_view name;
  bool no_numbers;
};

constexpr std::array<StatusTraits, 20> kStatuses{{
    {Status::NonFinite, "non_finite", true},
    {Status::NotRun, "not_run", true},
    {Status::NotObservable, "not_observable", true},
    {Status::NoGradient, "no_gradient", true},
    {Status::Overwritten, "overwritten", true},
    {Status::Zero, "zero", false},
    {Status::Subsampled, "subsampled", false},
    {Status::TooWide, "too_wide", true},
    {Status::Fp64Unavailable, "fp64_unavailable", false},
    {Status::Coupled, "coupled", false},
    {Status::ReductionUnknown, "reduction_unknown", true},
    {Status::ReductionMismatch, "reduction_mismatch", true},
    {Status::ShapeChanged, "shape_changed", true},
    {Status::CaptureFailed, "capture_failed", true},
    {Status::SolverRetried, "solver_retried", false},
    {Status::LossUnknown, "loss_unknown", false},
    {Status::BelowFloor, "below_floor", false},
    {Status::Empty, "empty", true},
    {Status::SamplesUnknown, "samples_unknown", true},
    {Status::NotReplayable, "not_replayable", true},
}};

}  // namespace

std::string_view to_string(Side side) {
  for (const auto& [value, name] : kSides) {
    if (value == side) return name;
  }
  throw InvalidArgument(fmt::format("to_string: {} is no Side", static_cast<int>(side)));
}

Side side_from_string(std::string_view text) {
  for (const auto& [value, name] : kSides) {
    if (name == text) return value;
  }
  throw InvalidArgument(fmt::format("side is '{}', expected activation, input or fisher", text));
}

bool StatusSet::no_numbers() const {
  for (const StatusTraits& traits : kStatuses) {
    if (traits.no_numbers && has(traits.status)) return true;
  }
  return false;
}

std::string to_string(StatusSet status) {
  std::string text;
  for (const StatusTraits& traits : kStatuses) {
    if (!status.has(traits.status)) continue;
    if (!text.empty()) text += '+';
    text += traits.name;
  }
  return text.empty() ? "ok" : text;
}

SeriesId series_of(const Signature& signature) {
  return {signature.layer, signature.side, signature.source, signature.fisher_kind};
}

std::string to_string(const SeriesId& series) {
  std::string text = fmt::format("{}, {} side ({}", series.layer, to_string(series.side), series.source);
  if (!series.fisher_kind.empty()) text += ", " + series.fisher_kind;
  return text + ")";
}

}  // namespace dds
