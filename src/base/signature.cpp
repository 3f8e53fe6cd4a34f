#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <dds/signature.hpp>
#include <utility>

#include "src/base/check.hpp"

namespace dds {
namespace {

template <class Value>
using Name = std::pair<Value, std::string_view>;

constexpr auto kSides = std::to_array<Name<Side>>({
    {Side::Activation, "activation"},
    {Side::Input, "input"},
    {Side::Fisher, "fisher"},
});
constexpr auto kSources = std::to_array<Name<Source>>({{Source::Read, "read"}, {Source::Step, "step"}});
constexpr auto kRowModes = std::to_array<Name<RowMode>>({{RowMode::Sample, "sample"}, {RowMode::Expand, "expand"}});
constexpr auto kDtypes = std::to_array<Name<c10::ScalarType>>({
    {c10::ScalarType::Float, "Float"},
    {c10::ScalarType::Double, "Double"},
    {c10::ScalarType::Half, "Half"},
    {c10::ScalarType::BFloat16, "BFloat16"},
});
constexpr std::string_view kEmpirical = "empirical", kExact = "exact", kSampled = "sampled:";

template <class Names, class Value>
std::string_view name_of(const Names& names, Value value, std::string_view type) {
  for (const auto& [known, name] : names) {
    if (known == value) return name;
  }
  throw_invalid("to_string", type, std::to_string(static_cast<int>(value)), "one of its enumerators");
}

[[noreturn]] void refuse(std::string_view what, std::string_view text, std::string_view expected) {
  throw_invalid(fmt::format("{}_from_string", what), what, fmt::format("'{}'", text), expected);
}

template <class Names>
auto value_of(const Names& names, std::string_view text, std::string_view what, std::string_view expected) {
  for (const auto& [value, name] : names) {
    if (name == text) return value;
  }
  refuse(what, text, expected);
}

struct StatusTraits {
  Status status;
  std::string_view name;
  bool no_numbers;
};

constexpr std::array<StatusTraits, 21> kStatuses{{
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
    {Status::BoundUnknown, "bound_unknown", false},
}};

}  // namespace

std::string_view to_string(Side side) { return name_of(kSides, side, "Side"); }
std::string_view to_string(Source source) { return name_of(kSources, source, "Source"); }
std::string_view to_string(RowMode mode) { return name_of(kRowModes, mode, "RowMode"); }
std::string to_string(FisherKind kind) {
  switch (kind.labels) {
    case FisherKind::Empirical:
      return std::string(kEmpirical);
    case FisherKind::Exact:
      return std::string(kExact);
    case FisherKind::Sampled:
      return fmt::format("{}{}", kSampled, kind.draws);
  }
  throw_invalid("to_string", "FisherKind", std::to_string(kind.labels), "one of its enumerators");
}

Side side_from_string(std::string_view text) { return value_of(kSides, text, "side", "activation, input or fisher"); }
Source source_from_string(std::string_view text) { return value_of(kSources, text, "source", "step or read"); }
RowMode row_mode_from_string(std::string_view text) {
  return value_of(kRowModes, text, "row_mode", "sample or expand");
}
c10::ScalarType dtype_from_string(std::string_view text) {
  return value_of(kDtypes, text, "dtype", "Float, Double, Half or BFloat16");
}
FisherKind fisher_kind_from_string(std::string_view text) {
  if (text == kEmpirical) return FisherKind::Empirical;
  if (text == kExact) return FisherKind::Exact;
  if (text.starts_with(kSampled)) {
    const std::string_view digits = text.substr(kSampled.size());
    std::int64_t draws = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), draws);
    if (error == std::errc() && end == digits.data() + digits.size()) return {FisherKind::Sampled, draws};
  }
  refuse("fisher_kind", text, "empirical, exact or sampled:K");
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

StatusSet status_from_string(std::string_view text) {
  StatusSet status;
  if (text == to_string(status)) return status;
  for (std::size_t begin = 0; begin != std::string_view::npos;) {
    const std::size_t end = text.find('+', begin);
    const std::string_view name = text.substr(begin, end - begin);
    const auto traits = std::find_if(kStatuses.begin(), kStatuses.end(), [&](const auto& s) { return s.name == name; });
    if (traits == kStatuses.end()) {
      refuse("status", name, "ok, or names of statuses joined by '+'");
    }
    status |= traits->status;
    begin = end == std::string_view::npos ? end : end + 1;
  }
  return status;
}

std::optional<double> Signature::volume_per_dimension() const {
  return logdet_plus && rank.value_or(0) > 0 ? std::optional(*logdet_plus / static_cast<double>(*rank)) : std::nullopt;
}

std::optional<double> Signature::log10_lambda_share() const {
  return log10_lambda_min_plus && log10_trace ? std::optional(*log10_lambda_min_plus - *log10_trace) : std::nullopt;
}

SeriesId series_of(const Signature& signature) {
  return {signature.layer, signature.side, signature.source, signature.fisher_kind};
}

std::string to_string(const SeriesId& series) {
  std::string text = fmt::format("{}, {} side ({}", series.layer, to_string(series.side), to_string(series.source));
  if (series.fisher_kind) text += ", " + to_string(*series.fisher_kind);
  return text + ")";
}

}  // namespace dds
