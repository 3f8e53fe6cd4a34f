// Which dead axes of a layer are born and revived over a training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <map>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// What happened to the dead axes of one series between two readings. The dead subspace has width - rank dimensions,
/// unlike Signature::dead_directions, which counts structural_bound - rank.
struct DeadAxesChange {
  SeriesId series;
  std::int64_t from = 0, to = 0;  ///< steps
  std::int64_t kept = 0;          ///< dimensions of the old dead subspace that are dead still
  std::int64_t born = 0;          ///< new dead dimensions
  std::int64_t revived = 0;       ///< dimensions that were dead and are not any more
  std::vector<double> angles;     ///< principal angles between the two dead subspaces
  at::Tensor born_axes;           ///< born x d, orthonormal, fp64, CPU
  at::Tensor revived_axes;        ///< revived x d, orthonormal, fp64, CPU
};

/// Follows the dead subspaces of any number of series over a training.
///
/// A Monitor has one for readings with dead axes, and logs its counts (Signature::born, Signature::revived). For the
/// subspaces themselves, put a tracker behind a sink:
///   dds::log::callback([&](const dds::Signature& s) { if (s.dead_axes.defined()) use(tracker.add(s)); })
///
/// The rule: a dimension is kept if its principal angle to the earlier dead subspace is below `threshold`. At pi/4, the
/// default, it is nearer to that subspace than to its complement. What is not kept is born in the later subspace, and
/// revived in the earlier one:
///   kept + born = dimension of the later subspace,   kept + revived = dimension of the earlier one.
/// A subspace that turns slowly is kept however far it goes. DeadAxesChange::angles tell how fast it turns.
class DeadAxesTracker {
 public:
  /// Throws InvalidArgument unless 0 < threshold <= pi/2.
  explicit DeadAxesTracker(double threshold = 0.78539816339744830962);

  /// Adds a reading that was made with SignatureOptions::dead_axes.
  /// Empty for the first reading of its series, for one without numbers, and where the layer's width changed: the
  /// series then begins anew. Throws InvalidArgument for a reading without dead axes.
  std::optional<DeadAxesChange> add(const Signature& signature);

 private:
  struct Last {
    std::int64_t step;
    at::Tensor axes;
  };
  double threshold_;
  std::map<SeriesId, Last> last_;
};

}  // namespace dds
