// Which dead axes of a layer appear (are born) and disappear (are revived) over a training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <map>
#include <optional>
#include <vector>

namespace DDS_EXPORT dds {

/// What happened to the dead subspace of one series between two readings. It has width - rank dimensions.
/// Signature::dead_directions is another number: structural_bound - rank.
struct DeadAxesChange {
  SeriesId series;
  std::int64_t from = 0, to = 0;  ///< steps
  std::int64_t kept = 0;          ///< dimensions that are dead in both readings
  std::int64_t born = 0;          ///< dimensions that are dead in the later reading only
  std::int64_t revived = 0;       ///< dimensions that are dead in the earlier reading only
  std::vector<double> angles;     ///< principal angles between the two, radians, ascending
  at::Tensor born_axes;           ///< born x d, orthonormal, fp64, CPU
  at::Tensor revived_axes;        ///< revived x d, orthonormal, fp64, CPU
};

/// Follows the dead subspaces of any number of series over a training.
///
/// A Monitor whose readings keep dead axes has a tracker. It logs the counts as Signature::born and Signature::revived.
/// For the subspaces themselves, feed a tracker of your own from a sink:
///   dds::log::callback([&](const dds::Signature& s) { if (s.axes.defined()) use(tracker.add(s)); })
///
/// The rule, with the principal angles between the earlier and the later subspace:
///   kept    = number of angles below `threshold`,
///   born    = dimension of the later subspace - kept,
///   revived = dimension of the earlier subspace - kept.
/// Below pi/4, the default, a dimension is nearer to the earlier subspace than to its complement.
/// A subspace that turns by less than `threshold` from each reading to the next is always kept, however far it turns in
/// all. DeadAxesChange::angles say how fast it turns.
class DeadAxesTracker {
 public:
  /// Throws InvalidArgument unless 0 < threshold <= pi/2.
  explicit DeadAxesTracker(double threshold = 0.78539816339744830962);

  /// Adds a reading.
  /// Valid input: a reading made with SignatureOptions::dead_axes, or one without numbers, which is ignored.
  /// Result: the change since the last reading of the series. Empty for the first reading, for one without numbers, and
  /// where the layer's width changed; the series then begins anew.
  /// Throws InvalidArgument for a reading that has numbers, but neither dead_axes nor axes.
  std::optional<DeadAxesChange> add(const Signature& signature);

 private:
  struct Last {
    std::int64_t step;
    at::Tensor basis;  ///< of the dead axes
    at::Tensor alive;  ///< in their place where they are too many: of what is orthogonal to them
  };
  double threshold_;
  std::map<SeriesId, Last> last_;
};

}  // namespace dds
