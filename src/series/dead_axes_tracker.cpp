#include <algorithm>
#include <cmath>
#include <dds/dead_axes_tracker.hpp>
#include <dds/directions.hpp>

#include "src/base/check.hpp"

namespace dds {

DeadAxesTracker::DeadAxesTracker(double threshold) : threshold_(threshold) {
  check(threshold > 0 && threshold <= std::acos(0.0), "DeadAxesTracker", "threshold", threshold,
        "above 0 and at most pi/2");
}

std::optional<DeadAxesChange> DeadAxesTracker::add(const Signature& signature) {
  if (signature.status.no_numbers()) return std::nullopt;
  const SeriesId series = series_of(signature);
  if (!signature.dead_axes.defined()) {
    throw_invalid("DeadAxesTracker::add", fmt::format("dead_axes of {} at step {}", to_string(series), signature.step),
                  "undefined", "a reading made with SignatureOptions::dead_axes");
  }
  const auto known = last_.find(series);
  const bool comparable = known != last_.end() && known->second.axes.size(1) == signature.dead_axes.size(1);
  std::optional<DeadAxesChange> change;
  if (comparable) {
    const PrincipalAngles angles = principal_angles(known->second.axes, signature.dead_axes);
    change.emplace();
    change->series = series;
    change->from = known->second.step;
    change->to = signature.step;
    change->angles = angles.angles;
    change->kept = std::count_if(angles.angles.begin(), angles.angles.end(), [&](double x) { return x < threshold_; });
    change->born = angles.second.size(0) - change->kept;
    change->revived = angles.first.size(0) - change->kept;
    change->born_axes = angles.second.narrow(0, change->kept, change->born);
    change->revived_axes = angles.first.narrow(0, change->kept, change->revived);
  }
  last_.insert_or_assign(series, Last{signature.step, signature.dead_axes});
  return change;
}

}  // namespace dds
