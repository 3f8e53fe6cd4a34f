#include <algorithm>
#include <cmath>
#include <dds/dead_axes_tracker.hpp>
#include <dds/directions.hpp>
#include <utility>

#include "src/base/check.hpp"

namespace dds {
namespace {

/// Of two dead subspaces, given by their bases.
DeadAxesChange between(const at::Tensor& earlier, const at::Tensor& later, double threshold) {
  const PrincipalAngles both = principal_angles(earlier, later);
  DeadAxesChange change;
  change.angles = both.angles;
  change.kept = std::count_if(both.angles.begin(), both.angles.end(), [&](double x) { return x < threshold; });
  change.born = later.size(0) - change.kept;
  change.revived = earlier.size(0) - change.kept;
  change.born_axes = both.second.narrow(0, change.kept, change.born);
  change.revived_axes = both.first.narrow(0, change.kept, change.revived);
  return change;
}

/// The rows of `axes` without their parts in the row space of `alive`, at unit length.
at::Tensor outside(const at::Tensor& axes, const at::Tensor& alive) {
  const at::Tensor part = axes.sub(axes.mm(alive.t()).mm(alive));
  return part.div(part.norm(2, {1}, /*keepdim=*/true));
}

/// The same, given by bases of what is orthogonal to them. Two subspaces and their complements have the same principal
/// angles, but for angles of 0 (Knyazev and Argentati 2007), and a direction dies where one that was alive is left.
DeadAxesChange between_complements(const at::Tensor& earlier, const at::Tensor& later, double threshold) {
  const PrincipalAngles alive = principal_angles(earlier, later);
  const std::int64_t before = earlier.size(0), after = later.size(0), width = later.size(1);
  const std::int64_t stayed =
      std::count_if(alive.angles.begin(), alive.angles.end(), [&](double x) { return x < threshold; });
  DeadAxesChange change;
  change.born = before - stayed;
  change.revived = after - stayed;
  change.kept = width - after - change.born;
  change.angles.assign(static_cast<std::size_t>(width - std::max(before, after)), 0.0);
  const auto shared = std::min(std::ssize(change.angles), std::ssize(alive.angles));
  std::copy(alive.angles.end() - shared, alive.angles.end(), change.angles.end() - shared);
  change.born_axes = outside(alive.first.narrow(0, stayed, change.born), alive.second);
  change.revived_axes = outside(alive.second.narrow(0, stayed, change.revived), alive.first);
  return change;
}

}  // namespace

DeadAxesTracker::DeadAxesTracker(double threshold) : threshold_(threshold) {
  check(threshold > 0 && threshold <= std::acos(0.0), "DeadAxesTracker", "threshold", threshold,
        "above 0 and at most pi/2");
}

std::optional<DeadAxesChange> DeadAxesTracker::add(const Signature& signature) {
  if (signature.status.no_numbers()) return std::nullopt;
  const SeriesId series = series_of(signature);
  if (!signature.dead_axes.defined() && !(signature.axes.defined() && signature.rank)) {
    throw_invalid("DeadAxesTracker::add", fmt::format("dead_axes of {} at step {}", to_string(series), signature.step),
                  "undefined", "a reading made with SignatureOptions::dead_axes");
  }
  Last now{signature.step, signature.dead_axes, {}};
  if (!now.basis.defined()) now.alive = signature.axes.narrow(0, 0, *signature.rank);
  const auto comparable = [](const at::Tensor& a, const at::Tensor& b) {
    return a.defined() && b.defined() && a.size(1) == b.size(1);
  };
  std::optional<DeadAxesChange> change;
  if (const auto known = last_.find(series); known != last_.end()) {
    const Last& last = known->second;
    if (comparable(last.basis, now.basis)) change = between(last.basis, now.basis, threshold_);
    if (comparable(last.alive, now.alive)) change = between_complements(last.alive, now.alive, threshold_);
    if (change) {
      change->series = series;
      change->from = last.step;
      change->to = signature.step;
    }
  }
  last_.insert_or_assign(series, std::move(now));
  return change;
}

}  // namespace dds
