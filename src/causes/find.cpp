#include "src/causes/find.hpp"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <dds/spectrum.hpp>

#include "src/causes/search.hpp"

namespace dds {
namespace {

/// Names what is dead by architecture and has no direction of its own: by shapes first, then by the probe.
void add_shapes(CauseSearch& search) {
  const Signature& signature = *search.reading.signature;
  std::int64_t unnamed = search.by_architecture;
  for (const Cause& cause : search.causes) unnamed -= is_by_architecture(cause.kind) ? cause.directions : 0;
  const std::int64_t named = search.by_architecture - unnamed, width = *signature.width;
  const std::int64_t any_samples = search.reading.layer->side(signature.side).bound.shape;
  const std::int64_t by_shape = signature.dead_directions
                                    ? std::clamp<std::int64_t>(width - std::min(width, any_samples) - named, 0, unnamed)
                                    : 0;
  const auto add = [&](CauseKind kind, std::int64_t directions) {
    if (directions > 0) search.causes.push_back({.kind = kind, .directions = directions});
  };
  add(CauseKind::Shape, by_shape);
  add(CauseKind::Probe, unnamed - by_shape);
}

/// What a reading without dead directions has.
void set_counts(Signature& signature, std::int64_t by_architecture, std::int64_t unexplained) {
  const std::int64_t dead = *signature.width - *signature.rank;
  signature.dead_by_architecture = by_architecture;
  signature.dead_unexplained = unexplained;
  signature.dead_explained = dead - by_architecture - unexplained;
}

void find(const CauseEvidence& reading, const ReadingIndex& all) {
  Signature& signature = *reading.signature;
  const std::int64_t width = *signature.width, dead = width - *signature.rank;
  if (dead == 0) return set_counts(signature, 0, 0);
  const std::int64_t rows = reading.rows - (signature.centred ? 1 : 0);
  const std::int64_t certain =
      signature.dead_directions ? dead - *signature.dead_directions : std::max<std::int64_t>(0, width - rows);
  CauseSearch search{.reading = reading,
                     .all = all,
                     .span = span_of(reading),
                     .dead = dead,
                     .by_architecture = certain,
                     .left = dead - certain};
  find_kernels(search);
  add_shapes(search);
  if (search.left > 0 && width <= Spectrum::kMostAxes) {
    find_units(search);
    find_duplicates(search);
    find_combinations(search);
    find_lost_ranks(search);
  }
  if (search.left > 0) {
    search.causes.push_back(
        {.kind = CauseKind::Unexplained, .directions = search.left, .units = std::move(search.silent)});
  }
  set_counts(signature, search.by_architecture, search.left);
  signature.causes = std::move(search.causes);
}

}  // namespace

DeadSpan span_of(const CauseEvidence& reading) {
  const double scale = std::ldexp(1.0, -reading.exponent);
  const Signature& signature = *reading.signature;
  return {reading.factor.to(at::kCPU), *signature.floor * scale, signature.sigma_min_plus.value_or(0) * scale};
}

void find_causes(const std::vector<CauseEvidence>& readings) {
  const at::NoGradGuard no_grad;
  const ReadingIndex all(readings);
  // Gradients come from the layers behind, so what is known of those comes first.
  for (auto reading = readings.rbegin(); reading != readings.rend(); ++reading) {
    if (reading->signature->side == Side::Fisher) find(*reading, all);
  }
  for (const CauseEvidence& reading : readings) {
    if (reading.signature->side != Side::Fisher) find(reading, all);
  }
}

}  // namespace dds
